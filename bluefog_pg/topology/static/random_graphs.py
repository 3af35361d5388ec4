"""Connected random graphs, undirected, with Metropolis-Hastings weights."""

import math
from collections.abc import Iterable, Iterator
from itertools import count

import networkx as nx
import numpy as np

from ..arguments import check_int, check_seed
from ..build import SizeError, check_size, metropolis_hastings
from ..draws import random_order, random_words
from ..registry import register

Edge = tuple[int, int]

_DRAWS = 100
"""How many disconnected Erdos-Renyi graphs to draw before giving up."""

_SWITCHES = 10
"""How many switches per edge of a regular graph are tried: enough to forget where it started."""


@register
def random_regular(n: int, degree: int | None = None, seed: int = 0) -> nx.DiGraph:
    """A random connected graph in which all ranks have `degree` neighbours, all weights equal.

    Symmetric. An expander from degree 3 on: with high probability the consensus rate is close to
    (1 + 2 sqrt(degree - 1)) / (1 + degree) or less, whatever n is: 0.893 for degree 4.

    Args:
        n: number of ranks.
        degree: number of neighbours. Default: 4, or n - 1 if that is less.
        seed: the same on all ranks.

    Raises:
        SizeError: an odd degree and an odd n.
        ValueError: n below 1, a seed below 0, or a degree that is n or more, or too small to
            connect n ranks.
    """
    n, seed = check_size(n), check_seed(seed)
    degree = _check_degree(n, min(4, n - 1) if degree is None else degree)
    if degree == 2:  # only rings are connected, and switches seldom lead from ring to ring
        return metropolis_hastings(nx.cycle_graph(random_order(n, seed, 0)))
    edges = _regular_edges(n, degree)
    for turn in count():
        _switch(edges, random_words(seed, turn, _SWITCHES * len(edges)).tolist())
        graph = _graph(n, edges)
        if nx.is_connected(graph):
            return metropolis_hastings(graph)


@register
def erdos_renyi(n: int, p: float | None = None, seed: int = 0) -> nx.DiGraph:
    """A random connected graph: each pair of ranks is joined with probability p.

    Symmetric; the mean degree is about p (n - 1). Disconnected graphs are drawn again.

    Args:
        n: number of ranks.
        p: probability of an edge. Default: 2 ln(n) / n, or 1 if that is less, for a mean degree of
            about 2 ln n. Above half of it such graphs are mostly connected.
        seed: the same on all ranks.

    Raises:
        ValueError: n below 1, a seed below 0, p outside of (0, 1], or so small a p that 100 draws
            gave no connected graph.
    """
    n, seed = check_size(n), check_seed(seed)
    threshold = math.log(n) / n
    p = min(2 * threshold, 1.0) if p is None else _check_probability(p)
    for draw in range(_DRAWS):
        graph = _graph(n, _random_edges(n, p, seed, draw))
        if nx.is_connected(graph):
            return metropolis_hastings(graph)
    raise ValueError(
        f"none of {_DRAWS} random graphs of n={n} ranks with p={p} was connected; "
        f"they mostly are for p above ln(n)/n = {threshold:.3g}"
    )


def _regular_edges(n: int, degree: int) -> list[Edge]:
    """To the degree // 2 next ranks on a circle, and to the opposite one if the degree is odd."""
    edges = [(i, (i + hop) % n) for hop in range(1, degree // 2 + 1) for i in range(n)]
    return edges + [(i, i + n // 2) for i in range(n // 2) if degree % 2]


def _switch(edges: list[Edge], words: list[int]) -> None:
    """For each word u-v and x-y become u-y and x-v, unless that makes a loop or an edge twice."""
    joined = set(map(frozenset, edges))
    for word in words:
        first, second = word % len(edges), (word >> 32) % len(edges)
        (u, v), (x, y) = edges[first], edges[second][:: 1 if word >> 63 else -1]
        if u != y and x != v and joined.isdisjoint((frozenset((u, y)), frozenset((x, v)))):
            joined -= {frozenset((u, v)), frozenset((x, y))}
            joined |= {frozenset((u, y)), frozenset((x, v))}
            edges[first], edges[second] = (u, y), (x, v)


def _random_edges(n: int, p: float, seed: int, draw: int) -> Iterator[Edge]:
    for i in range(n):
        uniform = (random_words(seed, draw * n + i, i) >> 11) * 2.0**-53  # in [0, 1)
        yield from ((i, j) for j in np.flatnonzero(uniform < p).tolist())


def _graph(n: int, edges: Iterable[Edge]) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    return graph


def _check_degree(n: int, degree: int) -> int:
    degree = check_int("degree", degree, low=min(n - 1, 2))
    if degree >= n:
        raise ValueError(f"a rank among n={n} has at most {n - 1} neighbours, not degree={degree}")
    if n * degree % 2:
        raise SizeError(f"random_regular with the odd degree={degree} needs an even n, not n={n}")
    return degree


def _check_probability(p: float) -> float:
    if not 0 < p <= 1:  # NaN too
        raise ValueError(f"p must be above 0 and at most 1, got {p}")
    return p
