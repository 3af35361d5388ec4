"""What one rank does in a graph: whom it receives from and sends to, with which weights.

This is the only place that reads ``weight`` from edges, so every layer sees the same rule.
"""

import math
import numbers
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt


def recv_weights(graph: nx.DiGraph, rank: int) -> tuple[float, dict[int, float]]:
    """Returns (self weight, {source rank: weight}) of `rank`, sources ascending, without itself.

    y_i = self_weight * x_i + sum_j weights[j] * x_j, by these rules for the edges into i:

    - they have weights: those are used. Without a self-loop the self weight is 0.
    - none has a weight: all are 1 / (in-degree + 1), the self weight too, whether or not there is
      a self-loop (it does not count in the in-degree). A rank without incoming edges thus keeps
      its value.

    Raises:
        ValueError: rank is not in the graph, some incoming edges have a weight and some have not,
            or a weight is NaN or infinite; the message names the edge.
        TypeError: a weight is not a real number.
    """
    incoming = _edges(graph.pred, rank)
    with_weight = sorted(src for src, edge in incoming.items() if "weight" in edge)
    if not with_weight:
        sources = sorted(int(src) for src in incoming if src != rank)
        uniform = 1 / (len(sources) + 1)
        return uniform, dict.fromkeys(sources, uniform)
    for src in sorted(incoming):
        if "weight" not in incoming[src]:
            raise ValueError(
                f"edge ({src}, {rank}) has no weight, but edge ({with_weight[0]}, {rank}) has one; "
                f"give all edges into rank {rank} a weight, its self-loop included, or give none "
                f"a weight for a uniform average"
            )
    weights = {int(src): _finite(src, rank, incoming[src]["weight"]) for src in with_weight}
    self_weight = weights.pop(rank, 0.0)
    return self_weight, weights


def all_recv_weights(
    graph: nx.DiGraph,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns (sources, receivers, weights): what `recv_weights` says of all ranks of 0..n-1.

    One entry per edge and per self weight (one of 0 may be left out), in no particular order.

    Raises:
        ValueError, TypeError: what `recv_weights` raises for the lowest rank that it refuses.
    """
    adjacency = dict(graph.adjacency())
    receivers = [dst for edges in adjacency.values() for dst in edges]
    weights = [edge.get("weight") for edges in adjacency.values() for edge in edges.values()]
    given = set(map(type, weights)) == {float} and all(map(math.isfinite, weights))
    if given and len(set(receivers)) == len(graph):
        # Nothing to work out or to refuse, as almost always; this is several times as fast.
        sources = np.repeat(list(adjacency), [len(edges) for edges in adjacency.values()])
        return sources, np.array(receivers), np.array(weights)
    edges = [
        (src, rank, weight)
        for rank in range(len(graph))
        for self_weight, sources in [recv_weights(graph, rank)]
        for src, weight in [(rank, self_weight), *sources.items()]
    ]
    sources, receivers, weights = zip(*edges, strict=True) if edges else ((), (), ())
    return np.array(sources, int), np.array(receivers, int), np.array(weights, float)


def has_weights(graph: nx.DiGraph) -> bool:
    """Whether any edge has a weight; without, `recv_weights` says what is applied."""
    return any("weight" in edge for *_, edge in graph.edges.data())


def send_ranks(graph: nx.DiGraph, rank: int) -> list[int]:
    """Returns the ranks that `rank` sends to, ascending, without itself.

    Raises:
        ValueError: rank is not in the graph.
    """
    return sorted(int(dst) for dst in _edges(graph.succ, rank) if dst != rank)


def _edges(adjacency: Any, rank: int) -> Any:
    if rank not in adjacency:
        raise ValueError(f"rank {rank} is not in the topology, which has {len(adjacency)} nodes")
    return adjacency[rank]


def _finite(src: int, dst: int, weight: object) -> float:
    if not isinstance(weight, numbers.Real):
        raise TypeError(
            f"the weight of edge ({src}, {dst}) is {weight!r}, a {type(weight).__name__}; "
            f"weights must be real numbers"
        )
    value = float(weight)
    if not math.isfinite(value):
        raise ValueError(f"the weight of edge ({src}, {dst}) is {value}; weights must be finite")
    return value
