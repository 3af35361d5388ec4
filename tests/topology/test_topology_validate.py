"""Topologies that a group can't run, and what it says about them."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import Schedule, one_peer_exponential, ring, validate


def weighted(value):
    graph = ring(4)
    graph[2][3]["weight"] = value
    return graph


def test_topologies_that_fit():
    validate(ring(4), 4)
    validate(one_peer_exponential(6), 6)
    validate(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), 3)
    validate(nx.from_numpy_array(np.full((3, 3), 1 / 3), create_using=nx.DiGraph), 3)
    validate(weighted(-0.5), 4)  # not stochastic, but computable


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (nx.cycle_graph(4), r"got Graph; .*graph\.to_directed\(\)"),
        (nx.MultiDiGraph(ring(4)), "got MultiDiGraph; merge its parallel edges"),
        (nx.MultiGraph(), "got MultiGraph; merge its parallel edges"),
        ("ring", r"got 'ring'; .*get\(name\)\(n\)"),
        (ring, "got function; call it"),
        (None, "got NoneType$"),
        (np.eye(4), "got ndarray$"),
    ],
)
def test_other_types(topology, message):
    with pytest.raises(TypeError, match=r"must be an nx\.DiGraph or a Schedule, " + message):
        validate(topology, 4)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (ring(6), "^topology has 6 nodes, the group has 4 ranks$"),
        (one_peer_exponential(6), "^topology has 6 nodes, the group has 4 ranks: Schedule"),
        (nx.DiGraph(), "topology has 0 nodes, the group has 4 ranks"),
        (nx.relabel_nodes(ring(4), {0: 4}), r"ranks 0\.\.3; missing: 0; not a rank: 4$"),
        (nx.relabel_nodes(ring(4), {0: "a", 3: "b"}), "missing: 0, 3; not a rank: 'a', 'b'$"),
    ],
)
def test_other_nodes(topology, message):
    with pytest.raises(ValueError, match=message):
        validate(topology, 4)


def test_long_lists_of_nodes_are_cut():
    graph = nx.relabel_nodes(ring(30), {i: i + 100 for i in range(30)})
    with pytest.raises(ValueError, match="missing: 0, 1, 2, 3, 4, 5, 6, 7 and 22 more; not a rank"):
        validate(graph, 30)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_weights_that_are_not_finite(value):
    with pytest.raises(ValueError, match=rf"weight of edge \(2, 3\) is {float(value)}; .*finite"):
        validate(weighted(value), 4)


@pytest.mark.parametrize("value", [None, "0.5", 1j])
def test_weights_that_are_no_real_numbers(value):
    with pytest.raises(TypeError, match=r"weight of edge \(2, 3\) is .*must be real numbers"):
        validate(weighted(value), 4)


def test_weights_on_some_edges_only():
    graph = ring(4)
    del graph[2][3]["weight"]
    with pytest.raises(ValueError, match=r"edge \(2, 3\) has no weight, but edge \(0, 3\) has one"):
        validate(graph, 4)


@pytest.mark.parametrize("period", [4, None])
def test_every_round_of_a_schedule_is_checked(period):
    schedule = Schedule(lambda step: weighted(float("nan") if step == 3 else 0.5), 4, period)
    with pytest.raises(ValueError, match=r"round 3 of Schedule.*edge \(2, 3\) is nan"):
        validate(schedule, 4)


@pytest.mark.parametrize("size", [0, -1])
def test_group_without_ranks(size):
    with pytest.raises(ValueError, match=f"at least 1 rank, got n={size}"):
        validate(ring(1), size)
