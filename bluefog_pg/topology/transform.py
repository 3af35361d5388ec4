"""Topologies made of others, graph by graph."""

from collections.abc import Callable, Iterable
from functools import wraps

import networkx as nx
import numpy as np
import numpy.typing as npt

from .analysis.facts import ATOL
from .schedule import Schedule
from .weights import all_recv_weights, recv_weights, send_ranks


def each_graph(
    change: Callable[[nx.DiGraph], nx.DiGraph],
) -> Callable[[nx.DiGraph | Schedule], nx.DiGraph | Schedule]:
    """Makes a function of one graph one of a topology; use it as a decorator.

    Of a graph it returns what `change` does, of a `Schedule` the schedule of what `change` makes of
    each of its graphs, with the same period. `change` must leave its graph as it is.
    """

    @wraps(change)
    def changed(topology: nx.DiGraph | Schedule) -> nx.DiGraph | Schedule:
        if not isinstance(topology, Schedule):
            return change(topology)
        name = f"{change.__name__}({topology.name})"
        return Schedule(lambda at: change(topology(at)), topology.size, topology.period, name)

    return changed


@each_graph
def lazy(graph: nx.DiGraph) -> nx.DiGraph:
    """Returns the topology of (I + W) / 2: every rank keeps half of its value, and W acts on half.

    Of a symmetric, doubly stochastic W it has no eigenvalue below 0 (arXiv:1702.05122).
    """
    halved = nx.DiGraph()
    halved.add_nodes_from(range(len(graph)))
    for rank in range(len(graph)):
        own, sources = recv_weights(graph, rank)
        halved.add_edge(rank, rank, weight=(1 + own) / 2)
        halved.add_weighted_edges_from((src, rank, w / 2) for src, w in sources.items())
    return halved


@each_graph
def column_stochastic(graph: nx.DiGraph) -> nx.DiGraph:
    """Returns the topology with weights of which those given to any one rank's value sum to 1.

    W's columns sum to 1, so it keeps the sum of all values; push-sum wants that. A graph whose
    weights are such already is returned as it is. Otherwise each rank's value gets the weight
    1 / (out-degree + 1) at its out-neighbours and at itself: senders can know that.
    """
    sources, _, weights = all_recv_weights(graph)
    if _sum_to_one(sources, weights, len(graph)):
        return graph
    shares = {i: (i, *send_ranks(graph, i)) for i in range(len(graph))}
    return _weighted((i, j, 1 / len(heard_by)) for i, heard_by in shares.items() for j in heard_by)


@each_graph
def row_stochastic(graph: nx.DiGraph) -> nx.DiGraph:
    """Returns the topology with weights of which those that any one rank applies sum to 1.

    W's rows sum to 1, so it makes averages. A graph whose weights are such already is returned as
    it is. Otherwise each rank gives 1 / (in-degree + 1) to each in-neighbour and to itself.
    """
    _, receivers, weights = all_recv_weights(graph)
    if _sum_to_one(receivers, weights, len(graph)):
        return graph
    heard = {i: (i, *_sources(graph, i)) for i in range(len(graph))}
    return _weighted((j, i, 1 / len(sources)) for i, sources in heard.items() for j in sources)


@each_graph
def received(graph: nx.DiGraph) -> nx.DiGraph:
    """Returns the topology in which each rank's value becomes the sum of what it receives.

    All weights are 1; a rank that receives nothing keeps its value.
    """
    return _weighted((j, i, 1.0) for i in range(len(graph)) for j in _sources(graph, i) or [i])


def union(topology: nx.DiGraph | Schedule) -> nx.DiGraph:
    """Returns a graph with the edges of all steps of a schedule, without weights.

    A graph is returned as it is.

    Raises:
        ValueError: a schedule without a period.
    """
    if not isinstance(topology, Schedule):
        return topology
    if topology.period is None:
        raise ValueError(
            f"{topology.name or 'the schedule'} never repeats itself, so there is no telling which "
            "edges it has; give a graph that has all edges to be used"
        )
    graph = nx.DiGraph()
    graph.add_nodes_from(range(topology.size))
    for step in range(topology.period):
        graph.add_edges_from(topology(step).edges)
    return graph


def _sources(graph: nx.DiGraph, rank: int) -> list[int]:
    return [int(source) for source in graph.pred[rank] if source != rank]


def _sum_to_one(ranks: npt.NDArray, weights: npt.NDArray, size: int) -> bool:
    return bool(np.abs(np.bincount(ranks, weights, size) - 1).max() <= ATOL)


def _weighted(edges: Iterable[tuple[int, int, float]]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(edges)
    return graph
