"""Ranks find out that they hold different topologies, and which edges differ."""

import json

import networkx as nx
import pytest

from bluefog_pg.topology import (
    Schedule,
    describe_difference,
    edge_list,
    exponential,
    fingerprint,
    fully_connected,
    get,
    names,
    one_peer_exponential,
    ring,
)


def test_edge_list_of_a_static_graph():
    graph = nx.DiGraph([(1, 0), (0, 0)])
    assert edge_list(graph) == [[0, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 1, 1, 1.0]]


def test_edge_list_of_a_schedule_has_all_rounds():
    edges = edge_list(one_peer_exponential(4))
    assert len(edges) == 2 * 8
    assert [0, 3, 0, 0.5] in edges
    assert [1, 3, 1, 0.5] in edges
    assert len(edge_list(Schedule(lambda step: ring(4), 4))) == 64 * 12
    assert edges == sorted(edges)


@pytest.mark.parametrize("name", names())
def test_lists_survive_json(name):
    edges = edge_list(get(name)(8))
    assert json.loads(json.dumps(edges)) == edges


@pytest.mark.parametrize("name", names())
def test_equal_topologies_have_equal_fingerprints(name):
    assert fingerprint(get(name)(8)) == fingerprint(get(name)(8))
    assert len(fingerprint(get(name)(8))) == 32


def test_fingerprint_is_of_what_is_applied():
    shuffled = nx.DiGraph()
    shuffled.add_nodes_from([2, 0, 1])
    shuffled.add_edges_from([(2, 1), (1, 0), (0, 2), (2, 0), (1, 2), (0, 1)])
    assert fingerprint(shuffled) == fingerprint(ring(3)) == fingerprint(fully_connected(3))
    assert fingerprint(Schedule.from_graphs([ring(5)])) == fingerprint(ring(5))
    zero, minus_zero = ring(4), ring(4)
    zero[0][1]["weight"], minus_zero[0][1]["weight"] = 0.0, -0.0
    assert fingerprint(zero) == fingerprint(minus_zero)


def test_fingerprint_does_not_change_between_releases():
    # Ranks of one job may run different builds. Recompute only with a reason in the changelog.
    assert fingerprint(nx.DiGraph([(0, 1), (1, 0)])).hex() == (
        "dbda7960b69977f7c683875f63f0e4ed55ca5a201b613b7e7f12bdeabb2366f9"
    )


def test_fingerprints_differ():
    heavier, fewer, reverse = ring(6), ring(6), exponential(6).reverse()
    heavier[0][1]["weight"] += 1e-16
    fewer.remove_edge(0, 1)
    topologies = [
        ring(5),
        ring(6),
        heavier,
        fewer,
        ring(6, "left"),
        ring(6, "right"),
        exponential(6),
        reverse,
        one_peer_exponential(6),
        Schedule.from_graphs([ring(6)] * 64),
        Schedule(lambda step: ring(6), 6),
        Schedule.from_graphs([ring(6, "left"), ring(6, "right")]),
        Schedule.from_graphs([ring(6, "right"), ring(6, "left")]),
    ]
    assert len({fingerprint(topology) for topology in topologies}) == len(topologies)


def test_no_difference():
    edges = edge_list(one_peer_exponential(6))
    assert describe_difference(edges, json.loads(json.dumps(edges))) == ""


def test_differences_name_edge_and_both_weights():
    other = ring(4)
    other[0][1]["weight"] = 0.25
    other.remove_edge(2, 3)
    other.add_edge(0, 2, weight=0.125)
    third = 1 / 3
    assert describe_difference(edge_list(ring(4)), edge_list(other), "rank 0", "rank 3") == (
        f"edge 0 -> 1: weight {third} on rank 0, weight 0.25 on rank 3; "
        "edge 0 -> 2: absent on rank 0, weight 0.125 on rank 3; "
        f"edge 2 -> 3: weight {third} on rank 0, absent on rank 3"
    )


def test_differences_of_schedules_name_the_step():
    left, right = ring(4, "left"), ring(4, "right")
    a = Schedule.from_graphs([left, left])
    b = Schedule.from_graphs([left, right])
    text = describe_difference(edge_list(a), edge_list(b))
    assert text.startswith("edge 0 -> 1 at step 1: absent on a, weight 0.5 on b; ")
    assert "step 0" not in text


def test_long_differences_are_cut():
    text = describe_difference(edge_list(ring(8)), edge_list(fully_connected(8)), limit=2)
    assert text.count("edge ") == 2
    assert text.endswith("; and 62 more edges")
