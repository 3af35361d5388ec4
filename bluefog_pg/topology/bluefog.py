"""BlueFog's names for static graphs, with its arguments and values.

They are not registered: the registry has them under our names.
"""

import networkx as nx

from .arguments import check_int
from .build import powers
from .static.classic import fully_connected, ring, star
from .static.exponential import exponential, symmetric_exponential
from .static.grid import mesh2d
from .weights import recv_weights, send_ranks

_RING_DIRECTIONS = ("both", "left", "right")


def ExponentialTwoGraph(size: int) -> nx.DiGraph:
    """`exponential` with base 2."""
    return exponential(size)


def ExponentialGraph(size: int, base: int = 2) -> nx.DiGraph:
    """`exponential`."""
    return exponential(size, base)


def SymmetricExponentialGraph(size: int, base: int = 4) -> nx.DiGraph:
    """`symmetric_exponential`, but with base 4 by default."""
    return symmetric_exponential(size, base)


def MeshGrid2DGraph(size: int, shape: tuple[int, int] | None = None) -> nx.DiGraph:
    """`mesh2d`."""
    return mesh2d(size, shape)


def StarGraph(size: int, center_rank: int = 0) -> nx.DiGraph:
    """`star`."""
    return star(size, center_rank)


def RingGraph(size: int, connect_style: int = 0) -> nx.DiGraph:
    """`ring`: connect_style 0 is the direction "both", 1 is "left", 2 is "right".

    Raises:
        ValueError: size below 1, or another connect_style.
    """
    if connect_style not in range(len(_RING_DIRECTIONS)):
        raise ValueError(
            f"connect_style must be 0 (both neighbours), 1 (left) or 2 (right), "
            f"got {connect_style!r}"
        )
    return ring(size, _RING_DIRECTIONS[connect_style])


def FullyConnectedGraph(size: int) -> nx.DiGraph:
    """`fully_connected`."""
    return fully_connected(size)


def IsTopologyEquivalent(topo1: nx.DiGraph | None, topo2: nx.DiGraph | None) -> bool:
    """Whether both have the same nodes and the same edges with the same weights.

    Edges without a weight weigh 1 here, as in an adjacency matrix. None equals nothing.
    """
    if topo1 is None or topo2 is None:
        return False
    return set(topo1) == set(topo2) and _adjacency(topo1) == _adjacency(topo2)


def IsRegularGraph(topo: nx.DiGraph) -> bool:
    """Whether all ranks have the same number of edges, incoming and outgoing together."""
    return len({degree for _, degree in topo.degree}) <= 1


def GetRecvWeights(topo: nx.DiGraph, rank: int) -> tuple[float, dict[int, float]]:
    """Returns (self weight, {source: weight}) by which `rank` averages: `recv_weights`."""
    return recv_weights(topo, rank)


def GetSendWeights(topo: nx.DiGraph, rank: int) -> tuple[float, dict[int, float]]:
    """Returns (self weight, {destination: weight that it gives to what `rank` sends})."""
    self_weight, _ = recv_weights(topo, rank)
    return self_weight, {dst: recv_weights(topo, dst)[1][rank] for dst in send_ranks(topo, rank)}


def isPowerOf(x: int, base: int) -> bool:
    """Whether x is 1, base, base^2, ...

    Raises:
        TypeError: x or base is no int.
        ValueError: x below 1, or base below 2.
    """
    x, base = check_int("x", x, low=1), check_int("base", base, low=2)
    return x in powers(base, x + 1)


def _adjacency(topo: nx.DiGraph) -> dict[tuple[int, int], float]:
    return {(src, dst): weight for src, dst, weight in topo.edges.data("weight", default=1.0)}
