"""Ring, star and complete graph."""

import networkx as nx

from ..build import check_size, circulant, metropolis_hastings
from ..registry import register

_RING_OFFSETS = {"both": (-1, 1), "left": (-1,), "right": (1,)}


@register
def ring(n: int, direction: str = "both") -> nx.DiGraph:
    """A ring of n ranks; the consensus rate is 1 - O(1/n^2).

    Args:
        n: number of ranks.
        direction: "both" exchanges with rank - 1 and rank + 1, all weights 1/3, and is symmetric.
            "left" sends to rank - 1 and "right" to rank + 1 (modulo n), all weights 1/2.
            With n = 2 the three are the same graph, weights 1/2.

    Raises:
        ValueError: n below 1, or another direction.
    """
    n = check_size(n)
    if direction not in _RING_OFFSETS:
        raise ValueError(f"direction must be one of {', '.join(_RING_OFFSETS)}, got {direction!r}")
    return circulant(n, _RING_OFFSETS[direction])


@register
def star(n: int, center: int = 0) -> nx.DiGraph:
    """Every rank exchanges with `center` only, with Metropolis-Hastings weights.

    Edges and the center's self-loop weigh 1/n, the other self-loops 1 - 1/n. Symmetric; the
    consensus rate is 1 - 1/n.

    Raises:
        ValueError: n below 1, or a center that is not in 0..n-1.
    """
    n = check_size(n)
    if center not in range(n):
        raise ValueError(f"center must be a rank in 0..{n - 1}, got {center!r}")
    spokes = nx.Graph()
    spokes.add_nodes_from(range(n))
    spokes.add_edges_from((center, i) for i in range(n) if i != center)
    return metropolis_hastings(spokes)


@register
def fully_connected(n: int) -> nx.DiGraph:
    """Every rank exchanges with every other, all weights 1/n: one step is the exact average.

    Raises:
        ValueError: n below 1.
    """
    n = check_size(n)
    return circulant(n, range(n))
