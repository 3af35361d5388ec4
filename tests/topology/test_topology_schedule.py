"""Schedule: steps and periods, shared graphs, both ways to make one, refused input."""

import copy
import pickle
import threading

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    Schedule,
    exponential,
    mixing_matrix,
    one_peer_exponential,
    ring,
    rounds,
    star,
)


def test_periodic_schedule_makes_each_round_once():
    made = []

    def graph_at(step):
        made.append(step)
        return ring(4, ["left", "right", "both"][step])

    schedule = Schedule(graph_at, size=4, period=3, name="turning")
    assert schedule(4) is schedule(1) is schedule(np.int64(7))
    assert schedule(5) is schedule(2)
    assert made == [1, 2]
    assert repr(schedule) == "Schedule(turning, size=4, period=3)"


def test_schedule_that_never_repeats_gets_the_step_itself():
    schedule = Schedule(lambda step: star(5, step % 5), size=5)
    assert schedule.period is None
    assert schedule(1003).out_degree(3) == 5
    assert len(list(rounds(schedule))) == 64


def test_rounds_of_a_period():
    schedule = one_peer_exponential(8)
    assert list(rounds(schedule)) == [schedule(0), schedule(1), schedule(2)]
    graph = ring(3)
    assert list(rounds(graph)) == [graph]


def test_from_graphs_repeats_copies_in_order():
    graphs = [ring(6), exponential(6)]
    schedule = Schedule.from_graphs(iter(graphs), name="two")
    assert (schedule.size, schedule.period) == (6, 2)
    before = mixing_matrix(graphs[0])
    graphs[0].remove_edge(0, 1)
    graphs[0][0][5]["weight"] = 9.0
    np.testing.assert_array_equal(mixing_matrix(schedule(2)), before)
    np.testing.assert_array_equal(mixing_matrix(schedule(3)), mixing_matrix(graphs[1]))


@pytest.mark.parametrize(
    "schedule", [one_peer_exponential(6), Schedule(lambda step: ring(6), 6)], ids=repr
)
def test_graphs_are_read_only(schedule):
    with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
        schedule(0).add_edge(0, 3)


def test_a_function_may_return_a_graph_that_its_owner_goes_on_changing():
    graph = ring(4)
    Schedule(lambda step: graph, size=4)(0)
    graph.add_edge(0, 2, weight=0.0)
    assert graph.has_edge(0, 2)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("make", [one_peer_exponential, lambda n: Schedule.from_graphs([ring(n)])])
def test_schedules_can_be_copied_and_pickled(make, clone):
    schedule = make(6)
    schedule(0)
    twin = clone(schedule)
    assert repr(twin) == repr(schedule)
    for step in range(4):
        assert nx.utils.graphs_equal(twin(step), schedule(step))


def test_threads_share_one_graph_per_round():
    schedule = one_peer_exponential(64)
    start = threading.Barrier(8)
    seen = []

    def read():
        start.wait(timeout=30)
        seen.append([schedule(step) for step in range(12)])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(seen) == 8
    assert {tuple(map(id, graphs)) for graphs in seen} == {tuple(map(id, seen[0]))}


@pytest.mark.parametrize("step", [1.0, None, "1"])
def test_steps_of_another_type(step):
    with pytest.raises(TypeError, match=f"step must be an int, not {step!r}"):
        one_peer_exponential(4)(step)


def test_negative_step():
    with pytest.raises(ValueError, match="step must be 0 or more, got -1"):
        one_peer_exponential(4)(-1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Schedule([ring(4)], 4), TypeError, "got list; .*from_graphs"),
        (lambda: Schedule(ring, 0), ValueError, "got n=0"),
        (lambda: Schedule(ring, 4, period=0), ValueError, "period .* at least 1, got 0"),
        (lambda: Schedule(ring, 4, period=2.5), TypeError, "period must be an int .*not 2.5"),
        (lambda: Schedule.from_graphs([]), ValueError, "at least one graph"),
        (lambda: Schedule.from_graphs([nx.Graph()]), TypeError, r"got Graph; .*to_directed\(\)"),
        (
            lambda: Schedule.from_graphs([ring(4), ring(5)]),
            ValueError,
            "round 1 of Schedule.*: topology has 5 nodes, the schedule has 4 ranks",
        ),
        (
            lambda: Schedule.from_graphs([ring(4), None]),
            TypeError,
            "round 1 of Schedule.*got NoneType",
        ),
    ],
)
def test_refused_schedules(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_bad_round_is_refused_when_it_is_made():
    schedule = Schedule(lambda step: ring(4 + (step == 70)), size=4, name="growing")
    schedule(69)
    with pytest.raises(ValueError, match=r"round 70 of Schedule\(growing, .* 5 nodes"):
        schedule(70)


def test_errors_of_the_users_function_pass_unchanged():
    def graph_at(step):
        raise UnicodeError(f"boom {step}")

    with pytest.raises(UnicodeError, match=r"^boom 3$"):
        Schedule(graph_at, size=4)(3)
