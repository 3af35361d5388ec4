"""Weights for pushing and pulling, what is received, and the turns of a tree."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    balanced_tree,
    ceca,
    column_stochastic,
    equi_dyn,
    exponential,
    fingerprint,
    mixing_matrix,
    one_peer_exponential,
    row_stochastic,
    star,
)
from bluefog_pg.topology.matchings import matchings
from bluefog_pg.topology.transform import received

THIRD, HALF = 1 / 3, 1 / 2


def test_weights_for_pushing_and_pulling():
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)])
    c, r = mixing_matrix(column_stochastic(graph)), mixing_matrix(row_stochastic(graph))
    np.testing.assert_array_equal(c, [[THIRD, 0, HALF], [THIRD, HALF, 0], [THIRD, HALF, HALF]])
    np.testing.assert_array_equal(r, [[HALF, 0, HALF], [HALF, HALF, 0], [THIRD, THIRD, THIRD]])
    assert not nx.get_edge_attributes(graph, "weight")

    other = nx.DiGraph()
    other.add_weighted_edges_from((i, j, 7.0) for i, j in [*graph.edges, (0, 0)])
    np.testing.assert_array_equal(mixing_matrix(column_stochastic(other)), c)
    np.testing.assert_array_equal(mixing_matrix(row_stochastic(other)), r)
    assert mixing_matrix(other)[0, 0] == 7.0

    alone = nx.DiGraph([(0, 1)])  # rank 1 sends to nobody, rank 0 hears of nobody
    np.testing.assert_array_equal(mixing_matrix(column_stochastic(alone)), [[HALF, 0], [HALF, 1]])
    np.testing.assert_array_equal(mixing_matrix(row_stochastic(alone)), [[1, 0], [HALF, HALF]])


@pytest.mark.parametrize("change", [column_stochastic, row_stochastic])
def test_weights_that_fit_stay(change):
    graph = exponential(7)
    assert change(graph) is graph
    for schedule in (one_peer_exponential(6), equi_dyn(5)):
        changed = change(schedule)
        assert fingerprint(changed) == fingerprint(schedule)
        assert (changed.size, changed.period) == (schedule.size, schedule.period)


@pytest.mark.parametrize("n", [1, 2, 6, 7])
def test_what_is_received(n):
    schedule = ceca(n)
    for step in range(schedule.period):
        expected = np.zeros((n, n))
        expected[range(n), schedule.update(step).sources] = 1
        np.testing.assert_array_equal(mixing_matrix(received(schedule)(step)), expected)


@pytest.mark.parametrize(
    "tree", [balanced_tree(1), balanced_tree(12), star(5, 2), balanced_tree(7, 1)]
)
def test_turns_of_a_tree(tree):
    turns = matchings(tree)
    edges = {edge for edge in tree.edges if edge[0] != edge[1]}
    assert len(turns) == max(len([e for e in edges if e[0] == rank]) for rank in tree)
    seen = []
    for turn in turns:
        w = mixing_matrix(turn)
        np.testing.assert_array_equal(w @ w, np.eye(len(tree)))  # pairs that swap, or oneself
        seen += [edge for edge in turn.edges if edge[0] != edge[1]]
    assert sorted(seen) == sorted(edges)

    other_order = nx.DiGraph(reversed([*tree.edges]))
    assert [*map(fingerprint, matchings(other_order))] == [*map(fingerprint, turns)]


def test_balanced_tree():
    tree = balanced_tree(8, branching=3)
    assert set(tree[0]) == {0, 1, 2, 3}
    assert set(tree[1]) == {0, 1, 4, 5, 6}
    assert set(tree[7]) == {2, 7}
    assert set(balanced_tree(5, branching=1)[2]) == {1, 2, 3}
    with pytest.raises(ValueError, match="branching must be at least 1, got 0"):
        balanced_tree(4, branching=0)
