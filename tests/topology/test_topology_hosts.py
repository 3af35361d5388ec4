"""Schedules that know of hosts: who leaves its host, what mixes, which sizes fit."""

import math

import networkx as nx
import numpy as np
import pytest
from topology_rounds import (
    assert_doubly_stochastic,
    degrees,
    destination,
    edges,
    matrix,
    period_error,
)

from bluefog_pg.topology import (
    SizeError,
    hierarchical_exponential,
    inner_outer_exponential,
    inner_outer_ring,
    one_peer_exponential,
    rounds,
)

INNER_OUTER = [inner_outer_ring, inner_outer_exponential]
SHAPES = [(hosts, local) for hosts in range(1, 7) for local in (1, 3, 4, 5, 8)]


def destinations(graph):
    return [destination(graph, rank) for rank in range(len(graph))]


def test_ring_by_hand():
    # Two hosts of three: 0 1 2 | 3 4 5. At step 1 the ranks 1 and 4 are outside.
    schedule = inner_outer_ring(6, ranks_per_host=3)
    assert [destinations(schedule(step)) for step in range(3)] == [
        [3, 2, 1, 0, 5, 4],
        [2, 4, 0, 5, 1, 3],
        [1, 0, 5, 4, 3, 2],
    ]


def test_exponential_by_hand():
    # Five hosts of four: hops of 1, 2, 4 hosts outside, and of 1, 2 places inside.
    schedule = inner_outer_exponential(20, ranks_per_host=4)
    assert schedule.period == 12  # lcm(4, 3, 2)
    assert [destination(schedule(t), t % 4) for t in range(6)] == [4, 9, 18, 7, 8, 17]
    assert destinations(schedule(0))[1:4] == [2, 3, 1]
    assert destinations(schedule(1))[:4] == [3, 9, 0, 2]  # in the order 2, 3, 0: two places on


@pytest.mark.parametrize("make", INNER_OUTER)
def test_one_rank_of_each_host_goes_outside(make):
    for hosts, local in SHAPES:
        schedule = make(hosts * local, ranks_per_host=local)
        for step, graph in enumerate(rounds(schedule)):
            assert_doubly_stochastic(graph, (hosts, local))
            outside = [
                rank
                for rank, peer in enumerate(destinations(graph))
                if peer // local != rank // local
            ]
            turn = [host * local + step % local for host in range(hosts)]
            assert outside == (turn if hosts > 1 else [])
            assert all(destination(graph, rank) % local == rank % local for rank in outside)
            assert {w for (i, j), w in edges(graph).items() if i != j} <= {0.5}


@pytest.mark.parametrize("make", INNER_OUTER)
def test_a_period_connects_all_ranks(make):
    for hosts, local in SHAPES:
        schedule = make(hosts * local, ranks_per_host=local)
        assert nx.is_strongly_connected(nx.compose_all(rounds(schedule))), (hosts, local)


@pytest.mark.parametrize("make", INNER_OUTER)
def test_the_period_is_the_shortest(make):
    for hosts, local in SHAPES:
        period = make(hosts * local, local).period
        # Two periods, from the rule itself rather than from the schedule's cache.
        make_round = make(hosts * local, local)._graph_at
        seen = [tuple(destinations(make_round(step))) for step in range(2 * period)]
        shortest = next(p for p in range(1, period + 1) if seen[p:] == seen[:-p])
        # A rank that is alone in its place can make a shorter rhythm; a period is never too short.
        assert seen[period:] == seen[:period], (hosts, local)
        assert period % shortest == 0
        if hosts > 1 and local > 2:
            assert shortest == period, (hosts, local)


def test_one_rank_per_host_is_a_ring_or_one_peer_exponential():
    for n in (2, 5, 8):
        ring, exponential = (make(n, ranks_per_host=1) for make in INNER_OUTER)
        assert destinations(ring(0)) == [(i + 1) % n for i in range(n)]
        assert ring.period == 1
        expected = one_peer_exponential(n)
        assert exponential.period == expected.period
        assert all(map(nx.utils.graphs_equal, rounds(exponential), rounds(expected)))


@pytest.mark.parametrize("make", INNER_OUTER)
@pytest.mark.parametrize(
    ("n", "local"),
    [(1, 1), (2, 1), (4, 1), (6, 3), (8, 4), (10, 5), (16, 8), (17, 1), (64, 8), (300, 6)],
)
def test_default_hosts(make, n, local):
    assert destinations(make(n)(0)) == destinations(make(n, ranks_per_host=local)(0))
    assert make(n).period == make(n, ranks_per_host=local).period


@pytest.mark.parametrize(
    ("n", "local"), [(1, 1), (2, 1), (4, 2), (6, 3), (8, 4), (17, 1), (64, 8), (300, 6)]
)
def test_default_hosts_of_hierarchical(n, local):
    expected = edges(hierarchical_exponential(n, ranks_per_host=local)(0))
    assert edges(hierarchical_exponential(n)(0)) == expected


@pytest.mark.parametrize(("hosts", "local"), [(1, 1), (1, 4), (2, 3), (4, 2), (5, 3), (8, 1)])
def test_hierarchical_is_one_peer_exponential_of_host_means(hosts, local):
    schedule = hierarchical_exponential(hosts * local, ranks_per_host=local)
    outer = one_peer_exponential(hosts)
    assert schedule.period == outer.period
    x = np.random.default_rng(0).uniform(-1, 1, hosts * local)
    for step in range(schedule.period):
        means = matrix(outer(step)) @ x.reshape(hosts, local).mean(axis=1)
        mixed = matrix(schedule(step)) @ x
        np.testing.assert_allclose(mixed, np.repeat(means, local), rtol=0, atol=1e-15)


def test_hierarchical_weights():
    graph = hierarchical_exponential(12, ranks_per_host=3)(1)  # hop of two hosts
    assert set(edges(graph).values()) == {1 / 6}
    assert set(graph.pred[0]) == {0, 1, 2, 6, 7, 8}
    assert degrees(graph) == (5, 5)
    one_host = hierarchical_exponential(4, ranks_per_host=4)
    assert one_host.period == 1
    assert edges(one_host(0)) == {(i, j): 1 / 4 for i in range(4) for j in range(4)}


def test_hierarchical_is_exact_for_powers_of_two_hosts():
    for hosts in range(1, 17):
        for local in (1, 2, 3, 8):
            schedule = hierarchical_exponential(hosts * local, local)
            for graph in rounds(schedule):
                assert_doubly_stochastic(graph, (hosts, local))
            exact = period_error(schedule) <= 1e-14
            assert exact == math.log2(hosts).is_integer(), (hosts, local)


@pytest.mark.parametrize("make", [*INNER_OUTER, hierarchical_exponential])
def test_refused_ranks_per_host(make):
    with pytest.raises(SizeError, match="multiple of ranks_per_host, got n=10 with 4 ranks per"):
        make(10, ranks_per_host=4)
    with pytest.raises(SizeError, match="got n=4 with 8 ranks per host"):
        make(4, ranks_per_host=8)
    with pytest.raises(ValueError, match="ranks_per_host must be at least 1, got 0"):
        make(4, ranks_per_host=0)
    with pytest.raises(TypeError, match=r"ranks_per_host must be an int, not 2\.0"):
        make(4, ranks_per_host=2.0)
    with pytest.raises(ValueError, match="at least 1 rank, got n=0"):
        make(0)


@pytest.mark.parametrize("make", INNER_OUTER)
def test_two_ranks_per_host_never_mix(make):
    with pytest.raises(ValueError, match=r"ranks_per_host must not be 2: .* never mix"):
        make(8, ranks_per_host=2)
