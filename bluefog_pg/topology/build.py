"""The parts that constructors are made of."""

import math
import operator
from collections.abc import Iterable

import networkx as nx


def check_size(n: int) -> int:
    """Returns `n` as an int; raises TypeError where it is none, ValueError where it is below 1."""
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of ranks must be an int, not {n!r}") from None
    if n < 1:
        raise ValueError(f"a topology needs at least 1 rank, got n={n}")
    return n


def circulant(n: int, offsets: Iterable[int]) -> nx.DiGraph:
    """Every rank i sends to (i + d) mod n for each offset d and averages uniformly.

    Offsets equal modulo n count once, and those that are 0 modulo n are the self-loop, which is
    always there. With m offsets left all weights are 1/(m + 1). The result is doubly stochastic.
    """
    hops = sorted({offset % n for offset in offsets} | {0})
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from((i, (i + d) % n, 1 / len(hops)) for i in range(n) for d in hops)
    return graph


def metropolis_hastings(graph: nx.Graph) -> nx.DiGraph:
    """Gives an undirected graph symmetric, doubly stochastic weights.

    w_ij = 1 / (1 + max(d_i, d_j)) for each edge, w_ii = 1 - sum_j w_ij, where d is the degree
    without self-loops (Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square
    deviation", 2007).
    """
    mixing = nx.DiGraph()
    mixing.add_nodes_from(sorted(graph))
    degree = {i: sum(j != i for j in graph.adj[i]) for i in graph}
    for i in mixing:
        peers = {j: 1 / (1 + max(degree[i], degree[j])) for j in sorted(graph.adj[i]) if j != i}
        mixing.add_edge(i, i, weight=1 - math.fsum(peers.values()))
        mixing.add_weighted_edges_from((j, i, weight) for j, weight in peers.items())
    return mixing
