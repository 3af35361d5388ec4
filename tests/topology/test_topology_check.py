"""What `problems` finds, and graphs from lists of sends and receives."""

import networkx as nx
import pytest

from bluefog_pg.topology import (
    Schedule,
    SizeError,
    from_peers,
    get,
    names,
    one_peer_exponential,
    problems,
    recv_weights,
    ring,
    rounds,
)


@pytest.mark.parametrize("name", names())
def test_registered_topologies_have_no_problem(name):
    for n in (1, 2, 3, 8, 13):
        try:
            topology = get(name)(n)
        except SizeError:
            continue
        assert problems(topology) == []


def test_all_problems_are_listed():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 0, 1.25), (1, 0, -0.5), (1, 1, 1), (2, 2, 1)])
    assert problems(graph) == [
        "the weight of edge (1, 0) is -0.5, less than 0",
        "the weights that a rank applies must sum to 1; rank 0: 0.75",
        "the weights that ranks give to one rank's value must sum to 1; rank 0: 1.25, rank 1: 0.5",
        "no path leads from rank 0 to ranks 1, 2",
    ]


def test_ways_in_only_and_out_only():
    chain = nx.DiGraph([(0, 1), (1, 2)])
    assert problems(chain)[-1] == "no path leads from ranks 1, 2 to rank 0"
    assert problems(chain.reverse())[-1] == "no path leads from rank 0 to ranks 1, 2"


def test_an_edge_of_weight_zero_leads_nowhere():
    graph = ring(4, "right")
    graph[1][2]["weight"] = 0.0
    graph[2][2]["weight"] = 1.0
    assert problems(graph)[-1] == "no path leads from rank 0 to ranks 2, 3"


def test_a_schedule_connects_over_its_rounds():
    halves = [nx.DiGraph([(0, 1), (1, 0)]), nx.DiGraph([(1, 2), (2, 1)])]
    for graph in halves:
        graph.add_nodes_from(range(3))
    assert problems(Schedule.from_graphs(halves)) == []
    assert problems(Schedule.from_graphs(halves[:1])) == ["no path leads from rank 0 to rank 2"]


def test_the_round_is_named():
    schedule = Schedule.from_graphs([ring(3), ring(3), nx.DiGraph([(0, 1), (1, 2), (0, 2)])])
    assert problems(schedule) == [
        "the weights that ranks give to one rank's value must sum to 1; rank 0: 1.83333, "
        "rank 1: 0.833333, rank 2: 0.333333 (round 2)"
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_from_peers_gives_the_graph_of_each_round(n):
    for graph in rounds(one_peer_exponential(n)):
        sends = [[j for j in graph.succ[i] if j != i] for i in range(n)]
        receives = [[j for j in graph.pred[i] if j != i] for i in range(n)]
        made = from_peers(sends, receives)
        for rank in range(n):
            assert recv_weights(made, rank) == recv_weights(graph, rank)


@pytest.mark.parametrize(
    ("sends", "receives", "message"),
    [
        ([[1], [2], []], [[], [0], []], "rank 1 sends to rank 2, which does not receive from it$"),
        ([[1], [], []], [[2], [0], []], "rank 0 receives from rank 2, which does not send to it$"),
        (
            [[1], [0]],
            [[], []],
            "match: rank 0 sends to rank 1, .*; rank 1 sends to rank 0, which does not receive",
        ),
        ([[1], []], [[], [0], []], "sends for 2 ranks, of receives for 3"),
        ([[0]], [[0]], "rank 0 sends to itself"),
        ([[1], []], [[], [1]], "rank 1 receives from itself"),
        ([[1, 1], []], [[], [0]], "rank 0 sends to rank 1 2 times"),
        ([[2], []], [[], []], r"rank 0 sends to 2, no rank of 0\.\.1"),
        ([[-1], []], [[], []], r"rank 0 sends to -1, no rank of 0\.\.1"),
        ([], [], "at least 1 rank, got n=0"),
    ],
)
def test_sends_and_receives_that_do_not_match(sends, receives, message):
    with pytest.raises(ValueError, match=message):
        from_peers(sends, receives)
