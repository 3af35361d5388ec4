"""The weights that one rank applies, and the matrix that they make."""

from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    consensus_rate,
    exponential,
    is_doubly_stochastic,
    mixing_matrix,
    one_peer_exponential,
    recv_weights,
    ring,
    send_ranks,
    sparse_mixing_matrix,
    star,
)
from bluefog_pg.topology.weights import all_recv_weights


def digraph(*edges, n=4):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    for src, dst, *weight in edges:
        graph.add_edge(src, dst, **({"weight": weight[0]} if weight else {}))
    return graph


def test_weights_of_the_graph_in_ascending_rank_order():
    graph = digraph((3, 1, 0.25), (1, 1, 0.5), (0, 1, 0.125), (2, 1, 0.0625), (1, 3), (1, 0))
    self_weight, sources = recv_weights(graph, 1)
    assert self_weight == 0.5
    assert list(sources.items()) == [(0, 0.125), (2, 0.0625), (3, 0.25)]
    assert send_ranks(graph, 1) == [0, 3]


def test_weighted_without_self_loop_gives_self_weight_0():
    assert recv_weights(digraph((0, 1, 1.0)), 1) == (0.0, {0: 1.0})


@pytest.mark.parametrize("self_loop", [[], [(1, 1)]])
def test_uniform_without_weights(self_loop):
    graph = digraph((3, 1), (0, 1), *self_loop)
    assert recv_weights(graph, 1) == (1 / 3, {0: 1 / 3, 3: 1 / 3})


def test_each_rank_decides_for_itself():
    graph = digraph((0, 1, 0.75), (1, 1, 0.25), (1, 0))
    assert recv_weights(graph, 0) == (0.5, {1: 0.5})
    assert recv_weights(graph, 1) == (0.25, {0: 0.75})


def test_a_rank_without_edges_keeps_its_value():
    graph = digraph((0, 1, 0.5))
    assert recv_weights(graph, 2) == (1.0, {})
    assert send_ranks(graph, 2) == []


def test_a_weight_of_zero_is_still_an_edge():
    graph = digraph((0, 1, 0.0), (1, 1, 1.0))
    assert recv_weights(graph, 1) == (1.0, {0: 0.0})
    assert send_ranks(graph, 0) == [1]


@pytest.mark.parametrize("weight", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_numbers_become_floats(weight):
    graph = nx.relabel_nodes(digraph((0, 1, weight), (1, 1, weight), n=2), np.int64)
    self_weight, sources = recv_weights(graph, 1)
    assert (self_weight, sources) == (0.5, {0: 0.5})
    assert type(self_weight) is float
    assert [(type(src), type(w)) for src, w in sources.items()] == [(int, float)]
    assert type(send_ranks(graph, 0)[0]) is int


@pytest.mark.parametrize(
    ("edges", "named"),
    [
        ([(0, 1, 0.5), (2, 1), (1, 1, 0.5)], r"edge \(2, 1\) has no weight, but edge \(0, 1\)"),
        ([(0, 1, 0.5), (1, 1)], r"edge \(1, 1\) has no weight, but edge \(0, 1\)"),
        ([(0, 1), (1, 1, 0.5)], r"edge \(0, 1\) has no weight, but edge \(1, 1\)"),
    ],
)
def test_some_with_and_some_without_weight(edges, named):
    with pytest.raises(ValueError, match=named):
        recv_weights(digraph(*edges), 1)


@pytest.mark.parametrize("rank", [4, -1])
def test_rank_that_is_not_in_the_graph(rank):
    for ask in (recv_weights, send_ranks):
        with pytest.raises(ValueError, match=f"rank {rank} is not in the topology, .*4 nodes"):
            ask(digraph(), rank)


def test_mixing_matrix_is_the_transpose_of_the_adjacency():
    graph = exponential(7)
    graph[0][1]["weight"] = 0.125
    w = mixing_matrix(graph)
    assert (w.shape, w.dtype, w[1, 0]) == ((7, 7), np.float64, 0.125)
    np.testing.assert_array_equal(w, nx.to_numpy_array(graph, nodelist=range(7)).T)


def test_mixing_matrix_orders_nodes_by_rank():
    graph = digraph((2, 0, 0.25), (0, 0, 0.75), n=0)
    graph.add_node(1)
    np.testing.assert_array_equal(mixing_matrix(graph), [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]])


def test_mixing_matrix_without_weights():
    np.testing.assert_array_equal(mixing_matrix(digraph((0, 1), n=2)), [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize(
    "graph",
    [
        exponential(7),
        digraph(n=0),
        digraph((0, 1), (1, 2), (3, 1), (3, 3, 0.5), (2, 3, 0.5)),  # with and without weights
        digraph((0, 1, 0.25), (1, 1, Fraction(3, 4)), (2, 0, 1.0)),  # 3 has no edges
        digraph((0, 1, 0.0), (1, 0, 0.5), (2, 3, 1.0), (3, 2, 1.0)),  # no self-loops
        nx.relabel_nodes(star(4), np.int64),
    ],
)
def test_all_at_once_is_what_each_rank_applies(graph):
    n = len(graph)
    found = {}
    for src, rank, weight in zip(*(a.tolist() for a in all_recv_weights(graph)), strict=True):
        assert (src, rank) not in found
        found[src, rank] = weight
    for rank in range(n):
        self_weight, sources = recv_weights(graph, rank)
        assert found.pop((rank, rank), 0.0) == self_weight
        assert {src: found.pop((src, rank)) for src in sources} == sources
    assert found == {}
    np.testing.assert_array_equal(sparse_mixing_matrix(graph).toarray(), mixing_matrix(graph))


def test_is_doubly_stochastic():
    assert is_doubly_stochastic(star(5))
    for graph in (star(5), ring(5)):
        nx.set_edge_attributes(graph, 1.0, "weight")
        assert not is_doubly_stochastic(graph)
    for _, _, edge in (unweighted := star(5)).edges(data=True):
        del edge["weight"]
    assert not is_doubly_stochastic(unweighted)  # rows sum to 1, columns do not
    assert not is_doubly_stochastic(nx.reverse(digraph((0, 1, 0.5), (0, 0, 0.5), n=2)))
    assert not is_doubly_stochastic(digraph((0, 0, 2), (1, 1, 2), (0, 1, -1), (1, 0, -1), n=2))
    nearly = digraph((0, 0, 1 + 1e-6), n=1)
    assert not is_doubly_stochastic(nearly)
    assert is_doubly_stochastic(nearly, atol=1e-5)


def test_consensus_rate_of_graphs_that_do_not_mix():
    assert consensus_rate(digraph()) == pytest.approx(1)
    assert consensus_rate(digraph(n=1)) == 0


def test_a_schedule_has_no_single_matrix():
    with pytest.raises(TypeError, match=r"must be an nx\.DiGraph, got Schedule; .*with a step"):
        mixing_matrix(one_peer_exponential(4))
