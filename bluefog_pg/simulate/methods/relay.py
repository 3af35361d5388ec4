"""RelaySGD: sums that travel along a tree instead of averages."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def relay_sgd(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """RelaySGD (arXiv 2110.04175). Exact under heterogeneous data; late by the path's length.

    y = x - lr g(x)
    m_ij' = y_i + sum of m_qi over the neighbors q of i but j;  c_ij' = 1 + sum of c_qi likewise
    x_i' = ((n - sum_j c_ji') y_i + sum_j m_ji') / n;  m0 = c0 = 0

    Every round has the same undirected tree; only its edges matter, not their weights.

    Raises:
        ValueError: it is not a tree, or it changes.
    """
    n, tree = len(x), None
    for w, lr in rounds:
        if tree is None:
            tree, (sources, relay, arrive) = w, _tree(w)
            messages, counts = np.zeros((len(sources), x.shape[1])), np.zeros((len(sources), 1))
        elif w is not tree:
            raise ValueError("relay_sgd needs the same tree in every round")
        y = x - lr * gradient(x)
        messages, counts = y[sources] + relay @ messages, 1 + relay @ counts
        x = ((n - arrive @ counts) * y + arrive @ messages) / n
        yield x


def _tree(w: csr_array) -> tuple[np.ndarray, csr_array, csr_array]:
    """Returns, of a tree's E directed edges, the sources and two matrices for what they carry.

    The first, (E, E), sums for edge (i, j) what came in at i but from j; the second, (n, E), sums
    for each rank what came in.
    """
    n = w.shape[0]
    dst, src = w.nonzero()
    edges = [(j, i) for j, i in zip(src.tolist(), dst.tolist(), strict=True) if j != i]
    index = {edge: e for e, edge in enumerate(edges)}
    for j, i in edges:
        if (i, j) not in index:
            raise ValueError(f"relay_sgd needs an undirected tree; ({j}, {i}) has no way back")
    parts, _ = connected_components(w, directed=False)
    if parts > 1 or len(edges) != 2 * (n - 1):
        raise ValueError(
            f"relay_sgd needs a tree; got {n} ranks with {len(edges) // 2} edges in {parts} part(s)"
        )
    e = np.arange(len(edges))
    sources, destinations = np.array(edges, dtype=int).reshape(-1, 2).T
    ones = np.ones(len(edges))
    leave = csr_array((ones, (e, sources)), shape=(len(edges), n))
    arrive = csr_array((ones, (destinations, e)), shape=(n, len(edges)))
    back = csr_array((ones, (e, [index[i, j] for j, i in edges])), shape=(len(edges),) * 2)
    return sources, leave @ arrive - back, arrive
