"""Topologies made of others."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    Schedule,
    each_graph,
    exponential,
    lazy,
    mixing_matrix,
    one_peer_exponential,
    ring,
    validate,
)


def unweighted(n):
    return nx.DiGraph(nx.complete_graph(n).to_directed().edges)


@pytest.mark.parametrize("make", [ring, exponential, unweighted])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_lazy_is_half_identity(make, n):
    graph = make(n)
    edges = set(graph.edges)
    w = mixing_matrix(graph)
    validate(lazy(graph), n)
    np.testing.assert_array_equal(mixing_matrix(lazy(graph)), (np.eye(n) + w) / 2)
    assert set(graph.edges) == edges  # it is left alone
    np.testing.assert_array_equal(mixing_matrix(graph), w)


def test_lazy_keeps_a_rank_that_does_not_keep_its_own():
    swap = nx.DiGraph()
    swap.add_weighted_edges_from([(0, 1, 1.0), (1, 0, 1.0)])
    np.testing.assert_array_equal(mixing_matrix(lazy(swap)), np.full((2, 2), 0.5))


def test_a_schedule_changes_round_by_round():
    schedule = one_peer_exponential(6)
    changed = lazy(schedule)
    assert isinstance(changed, Schedule)
    assert (changed.size, changed.period) == (6, 3)
    assert changed.name == "lazy(one_peer_exponential)"
    for step in (0, 1, 2, 5):
        expected = (np.eye(6) + mixing_matrix(schedule(step))) / 2
        np.testing.assert_array_equal(mixing_matrix(changed(step)), expected)
    assert changed(1) is changed(4)


def test_each_graph_makes_a_transform_of_any_function():
    @each_graph
    def reverse(graph):
        return graph.reverse()

    expected = mixing_matrix(exponential(5)).T
    np.testing.assert_array_equal(mixing_matrix(reverse(exponential(5))), expected)
    schedule = one_peer_exponential(5)
    expected = mixing_matrix(schedule(1)).T
    np.testing.assert_array_equal(mixing_matrix(reverse(schedule)(1)), expected)
    assert reverse(schedule).name == "reverse(one_peer_exponential)"
