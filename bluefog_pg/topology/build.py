"""The parts that constructors are made of."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping

import networkx as nx

from .graph import check_nodes


class SizeError(ValueError):
    """A constructor that exists only for some numbers of ranks was asked for another one."""


def check_size(n: int) -> int:
    """Returns `n` as an int; raises TypeError where it is none, ValueError where it is below 1."""
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of ranks must be an int, not {n!r}") from None
    if n < 1:
        raise ValueError(f"a topology needs at least 1 rank, got n={n}")
    return n


def powers(base: int, limit: int) -> Iterator[int]:
    """1, base, base^2, ... below limit, by multiplication: a float log misses 3^5 = 243."""
    power = 1
    while power < limit:
        yield power
        power *= base


def circulant(n: int, offsets: Iterable[int]) -> nx.DiGraph:
    """Every rank i sends to (i + d) mod n for each offset d and averages uniformly.

    Offsets equal modulo n count once, and those that are 0 modulo n are the self-loop, which is
    always there. With m offsets left all weights are 1/(m + 1). The result is doubly stochastic.
    """
    hops = {offset % n for offset in offsets} | {0}
    return weighted_circulant(n, dict.fromkeys(hops, 1 / len(hops)))


def weighted_circulant(n: int, weights: Mapping[int, float]) -> nx.DiGraph:
    """Every rank i sends to (i + d) mod n with weights[d], for offsets d in 0..n-1.

    Doubly stochastic if the weights are not negative and sum to 1.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    hops = sorted(weights.items())
    graph.add_weighted_edges_from((i, (i + d) % n, weight) for i in range(n) for d, weight in hops)
    return graph


def metropolis_hastings(graph: nx.Graph) -> nx.DiGraph:
    """Gives an undirected graph symmetric, doubly stochastic weights.

    w_ij = 1 / (1 + max(d_i, d_j)) for each edge, w_ii = 1 - sum_j w_ij > 0, where d is the degree
    without self-loops (Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square
    deviation", 2007). In a regular graph all weights are 1 / (1 + d).

    Args:
        graph: an nx.Graph on 0..n-1. Its weights and self-loops are ignored. It need not be
            connected: a matching is a round of a schedule.

    Raises:
        TypeError: not an nx.Graph, or one that is directed or has parallel edges.
        ValueError: no nodes, or nodes other than exactly 0..n-1.
    """
    _check_undirected(graph)
    n = check_size(len(graph))
    check_nodes(graph, n)
    neighbors = [sorted(int(j) for j in graph.adj[i] if j != i) for i in range(n)]
    mixing = nx.DiGraph()
    mixing.add_nodes_from(range(n))
    for i in range(n):
        own = 1 / (1 + len(neighbors[i]))
        weights = {j: min(own, 1 / (1 + len(neighbors[j]))) for j in neighbors[i]}
        # 1 - sum_j w_ij as own + sum_j (own - w_ij): never negative, and exactly own if all are.
        mixing.add_edge(i, i, weight=math.fsum([own, *(own - w for w in weights.values())]))
        mixing.add_weighted_edges_from((j, i, w) for j, w in weights.items())
    return mixing


def _check_undirected(graph: object) -> None:
    if not isinstance(graph, nx.Graph):
        raise TypeError(f"metropolis_hastings needs an nx.Graph, got {type(graph).__name__}")
    if graph.is_multigraph():
        hint = "merge its parallel edges with nx.Graph(graph)"
    elif graph.is_directed():
        hint = "graph.to_undirected() has an edge where there is one in either direction"
    else:
        return
    raise TypeError(f"metropolis_hastings needs an nx.Graph, got {type(graph).__name__}; {hint}")
