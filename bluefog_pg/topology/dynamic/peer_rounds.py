"""The graphs that the rounds of schedules are made of."""

from collections.abc import Iterable, Sequence

import networkx as nx

Edge = tuple[int, int, float]
"""(source rank, destination rank, weight)."""


def ceil_log2(n: int) -> int:
    """Returns ceil(log2 n) without floats: how many of the hops 1, 2, 4, ... are below n."""
    return (n - 1).bit_length()


def round_graph(n: int, edges: Iterable[Edge]) -> nx.DiGraph:
    """A read-only graph on 0..n-1 of these edges, with a self-loop of 1 for each rank that
    receives nothing: it keeps its value.

    Ranks that do receive need their self-loop among the edges.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from(edges)
    graph.add_weighted_edges_from([(i, i, 1.0) for i in range(n) if not graph.pred[i]])
    return nx.freeze(graph)  # a Schedule copies what is not frozen


def one_peer(destinations: Sequence[int], weights: tuple[float, float] = (0.5, 0.5)) -> nx.DiGraph:
    """Rank i sends to destinations[i]; each gives the weights to (itself, what it receives).

    `destinations` is a permutation of 0..n-1, so the result is doubly stochastic. A rank that
    sends to itself sits the round out: it keeps its value.
    """
    own, received = weights
    moves = [(src, dst) for src, dst in enumerate(destinations) if src != dst]
    loops = [(src, src, own) for src, _ in moves]
    return round_graph(len(destinations), loops + [(*move, received) for move in moves])


def averages(groups: Iterable[Sequence[int]]) -> list[Edge]:
    """The edges by which each group of ranks averages exactly, all weights 1 / its size."""
    return [(j, i, 1 / len(group)) for group in groups for i in group for j in group]
