"""BlueFog's graphs, iterators and helpers of `bluefog.common.topology_util`."""

import json

import networkx as nx
import numpy as np
import numpy.typing as npt

from bluefog_pg.group import all_gather_bytes
from bluefog_pg.topology import (
    ExponentialGraph,
    ExponentialTwoGraph,
    FullyConnectedGraph,
    GetDynamicOnePeerSendRecvRanks,
    GetExp2DynamicSendRecvMachineRanks,
    GetInnerOuterExpo2DynamicSendRecvRanks,
    GetInnerOuterRingDynamicSendRecvRanks,
    GetRecvWeights,
    GetSendWeights,
    IsRegularGraph,
    IsTopologyEquivalent,
    MeshGrid2DGraph,
    RingGraph,
    StarGraph,
    SymmetricExponentialGraph,
    isPowerOf,
    mixing_matrix,
)
from bluefog_pg.torch.context import current

__all__ = [
    "ExponentialGraph",
    "ExponentialTwoGraph",
    "FullyConnectedGraph",
    "GetDynamicOnePeerSendRecvRanks",
    "GetExp2DynamicSendRecvMachineRanks",
    "GetInnerOuterExpo2DynamicSendRecvRanks",
    "GetInnerOuterRingDynamicSendRecvRanks",
    "GetRecvWeights",
    "GetSendWeights",
    "InferDestinationFromSourceRanks",
    "InferSourceFromDestinationRanks",
    "IsRegularGraph",
    "IsTopologyEquivalent",
    "MeshGrid2DGraph",
    "RingGraph",
    "StarGraph",
    "SymmetricExponentialGraph",
    "isPowerOf",
]

Inferred = list[int] | tuple[list[int], npt.NDArray[np.float64]]


def InferSourceFromDestinationRanks(
    dst_ranks: list[int], construct_adjacency_matrix: bool = False
) -> Inferred:
    """Returns the ranks that send to this one, ascending, from whom each rank sends to. Collective.

    Args:
        dst_ranks: whom this rank sends to.
        construct_adjacency_matrix: return (ranks, A) instead: A[i, j] = 1 / (in-degree of j + 1)
            where i sends to j, and on the diagonal: columns sum to 1.

    Raises:
        AssertionError: dst_ranks are not ints, not ranks, not all different, or include this one.
    """
    return _infer(dst_ranks, construct_adjacency_matrix, are_sources=False)


def InferDestinationFromSourceRanks(
    src_ranks: list[int], construct_adjacency_matrix: bool = False
) -> Inferred:
    """Returns the ranks that this one sends to, from whom each rank receives from. Collective.

    As `InferSourceFromDestinationRanks`, the other way round; A is of the same kind.
    """
    return _infer(src_ranks, construct_adjacency_matrix, are_sources=True)


def _infer(ranks: list[int], with_matrix: bool, are_sources: bool) -> Inferred:
    backend = current().backend
    _check(ranks, backend.rank(), backend.size())
    own = json.dumps([int(rank) for rank in ranks]).encode()
    graph = nx.DiGraph()
    graph.add_nodes_from(range(backend.size()))
    for rank, text in enumerate(all_gather_bytes(backend, own)):
        graph.add_edges_from((rank, other) for other in json.loads(text))
    others = sorted(graph.predecessors(backend.rank()))
    if not with_matrix:
        return others
    return others, mixing_matrix(graph.reverse() if are_sources else graph).T


def _check(ranks: list[int], own: int, size: int) -> None:
    integers = all(isinstance(r, int | np.integer) and not isinstance(r, bool) for r in ranks)
    if not (integers and len({*ranks}) == len(ranks) and {*ranks} <= {*range(size)} - {own}):
        raise AssertionError(
            f"rank {own} must name other ranks of 0..{size - 1}, each once, got {ranks!r}"
        )
