"""Metropolis-Hastings weights for undirected graphs of any kind, and what is refused."""

from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_rounds import edges

from bluefog_pg.topology import (
    consensus_rate,
    fingerprint,
    fully_connected,
    is_doubly_stochastic,
    metropolis_hastings,
    mixing_matrix,
    validate,
)


def undirected(n, pairs=()):
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(pairs)
    return graph


def test_weights_by_hand():
    # Degrees: 1, 3, 2, 2.
    graph = metropolis_hastings(undirected(4, [(0, 1), (1, 2), (1, 3), (2, 3)]))
    quarter, third = 1 / 4, 1 / 3
    assert edges(graph) == {
        (0, 0): 0.75, (0, 1): quarter, (1, 0): quarter,
        (1, 1): quarter, (1, 2): quarter, (2, 1): quarter, (1, 3): quarter, (3, 1): quarter,
        (2, 2): pytest.approx(5 / 12, abs=1e-16), (2, 3): third, (3, 2): third,
        (3, 3): pytest.approx(5 / 12, abs=1e-16),
    }  # fmt: skip


@pytest.mark.parametrize(
    "graph", [nx.cycle_graph(7), nx.complete_graph(49), nx.petersen_graph(), nx.empty_graph(3)]
)
def test_all_weights_of_a_regular_graph_are_equal(graph):
    degree = graph.degree(0)
    assert set(edges(metropolis_hastings(graph)).values()) == {1 / (1 + degree)}


def test_self_loops_weights_and_the_order_of_nodes_do_not_matter():
    graph = nx.Graph()
    graph.add_nodes_from([2, 0, 1])
    graph.add_edges_from([(np.int64(2), np.int64(1)), (1, 0), (1, 1), (0, 2)], weight=7.0)
    mixing = metropolis_hastings(graph)
    assert list(mixing) == [0, 1, 2]
    assert all(type(i) is int for edge in mixing.edges for i in edge)
    assert fingerprint(mixing) == fingerprint(fully_connected(3))
    assert nx.number_of_selfloops(graph) == 1  # the caller's graph stays as it is
    assert graph[0][1] == {"weight": 7.0}


def test_disconnected_parts_average_among_themselves():
    graph = metropolis_hastings(undirected(5, [(0, 1), (2, 3)]))
    assert set(edges(graph).values()) == {0.5, 1.0}
    assert consensus_rate(graph) == pytest.approx(1)


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 24))
    node = st.integers(0, n - 1)
    return undirected(n, draw(st.lists(st.tuples(node, node), max_size=60)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(graphs())
def test_any_graph(graph):
    mixing = metropolis_hastings(graph)
    n = len(graph)
    validate(mixing, n)
    degree = {i: len(set(graph[i]) - {i}) for i in graph}
    for i in range(n):
        assert set(mixing[i]) == {i, *graph[i]}
        # Exact arithmetic: the floats are within a rounding or two of it.
        exact = {j: Fraction(1, 1 + max(degree[i], degree[j])) for j in graph[i] if j != i}
        exact[i] = 1 - sum(exact.values())
        for j, weight in exact.items():
            assert weight > 0
            assert mixing[i][j]["weight"] == pytest.approx(float(weight), rel=4e-16)
    w = mixing_matrix(mixing)
    np.testing.assert_array_equal(w, w.T)
    assert is_doubly_stochastic(mixing, atol=1e-14)
    rate = consensus_rate(mixing)
    assert rate < 1 - 1e-4 if nx.is_connected(graph) else rate == pytest.approx(1)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), r"got DiGraph; graph\.to_undirected\(\) has an edge"),
        (nx.MultiGraph([(0, 1), (0, 1)]), r"got MultiGraph; merge .* nx\.Graph\(graph\)"),
        (nx.MultiDiGraph([(0, 1)]), "got MultiDiGraph; merge"),
        (np.eye(3), "got ndarray$"),
        (3, "got int$"),
        (None, "got NoneType$"),
    ],
)
def test_other_types(graph, message):
    with pytest.raises(TypeError, match=r"metropolis_hastings needs an nx\.Graph, " + message):
        metropolis_hastings(graph)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.Graph(), "at least 1 rank, got n=0"),
        (nx.path_graph(range(1, 4)), r"ranks 0\.\.2; missing: 0; not a rank: 3$"),
        (nx.Graph([("a", "b"), ("b", 0)]), "missing: 1, 2; not a rank: 'a', 'b'$"),
        (nx.grid_2d_graph(1, 2), r"missing: 0, 1; not a rank: \(0, 0\), \(0, 1\)$"),
    ],
)
def test_other_nodes(graph, message):
    with pytest.raises(ValueError, match=message):
        metropolis_hastings(graph)
