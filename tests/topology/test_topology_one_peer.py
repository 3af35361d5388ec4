"""One-peer exponential in random order, one-peer hypercube, GossipGraD's dissemination."""

import math
from collections import Counter

import numpy as np
import pytest
from topology_rounds import (
    consensus_error,
    destination,
    edges,
    matrix,
    period_error,
)

from bluefog_pg.topology import (
    SizeError,
    dissemination,
    one_peer_exponential,
    one_peer_hypercube,
    rounds,
)

POWERS = [2**k for k in range(10)]


def hop(graph):
    """The hop that all ranks of a circulant one-peer graph take."""
    n = len(graph)
    (hops,) = {(destination(graph, i) - i) % n for i in range(n)}
    return hops


@pytest.mark.parametrize("make", [one_peer_exponential, one_peer_hypercube])
def test_exact_for_powers_of_two(make):
    for n in POWERS:
        schedule = make(n)
        assert schedule.period == max(int(math.log2(n)), 1)
        assert period_error(schedule) <= 1e-14, n


@pytest.mark.parametrize(
    "schedule",
    [one_peer_exponential(6, "random", seed=3), one_peer_hypercube(8), dissemination(6)],
    ids=repr,
)
def test_everyone_sends_half_of_its_value_to_one_rank(schedule):
    n = schedule.size
    for step in range(9):
        graph = schedule(step)
        assert set(edges(graph).values()) == {0.5}
        targets = [destination(graph, i) for i in range(n)]
        assert sorted(targets) == list(range(n))
        assert all(target != i for i, target in enumerate(targets))


@pytest.mark.parametrize("make", [one_peer_exponential, dissemination])
def test_a_lone_rank_keeps_its_value(make):
    assert edges(make(1)(5)) == {(0, 0): 1.0}
    assert edges(one_peer_exponential(1, "random")(5)) == {(0, 0): 1.0}
    assert edges(one_peer_hypercube(1)(5)) == {(0, 0): 1.0}


def test_hypercube_flips_one_bit():
    schedule = one_peer_hypercube(8)
    for step in range(6):
        assert [destination(schedule(step), i) for i in range(8)] == [
            i ^ 2 ** (step % 3) for i in range(8)
        ]


@pytest.mark.parametrize("n", [2, 3, 6, 16, 17])
def test_random_order_takes_every_hop_once_per_period(n):
    tau = math.ceil(math.log2(n))
    schedule = one_peer_exponential(n, order="random", seed=7)
    assert schedule.period is None
    for block in range(20):
        hops = [hop(schedule(step)) for step in range(block * tau, (block + 1) * tau)]
        assert sorted(hops) == [2**k for k in range(tau)]


def test_random_order_is_drawn_anew_and_takes_all_orders():
    schedule = one_peer_exponential(16, order="random")
    orders = Counter(tuple(hop(schedule(4 * b + k)) for k in range(4)) for b in range(480))
    assert len(orders) == 24
    assert max(orders.values()) < 2.5 * 20  # 20 of each on average


def test_random_order_and_dissemination_stay_exact_for_powers_of_two():
    for n in (2, 4, 8, 16, 64, 256):
        tau = int(math.log2(n))
        for schedule in (one_peer_exponential(n, "random", seed=1), dissemination(n, seed=1)):
            for block in (0, 1, 5):
                graphs = map(schedule, range(block * tau, (block + 1) * tau))
                assert consensus_error(graphs, n, seed=block) <= 1e-14, (n, schedule)


def test_the_order_of_the_hops_does_not_change_the_product():
    # The rounds commute, so one period in any order leaves the same residual: 0.217 for n = 6.
    n, product = 6, np.eye(6)
    schedule = one_peer_exponential(n, "random", seed=2)
    for step in range(3):
        product = matrix(schedule(step)) @ product
    residual = np.linalg.norm(product - 1 / n, ord=2)
    assert residual == pytest.approx(0.217, abs=6e-4)
    sequential = np.eye(6)
    for graph in rounds(one_peer_exponential(n)):
        sequential = matrix(graph) @ sequential
    np.testing.assert_allclose(product, sequential, rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [5, 8, 13])
def test_dissemination_is_one_peer_exponential_in_another_order_of_the_ranks(n):
    tau = math.ceil(math.log2(n))
    schedule = dissemination(n, seed=4)
    seen = set()
    for block in range(6):
        # Follow the round of hop 1 from rank 0 on: that is the circle of the ranks.
        places, rank = [], 0
        for _ in range(n):
            places.append(rank)
            rank = destination(schedule(block * tau), rank)
        assert sorted(places) == list(range(n))
        seen.add(tuple(places))
        for k in range(tau):
            graph = schedule(block * tau + k)
            assert all(destination(graph, places[p]) == places[(p + 2**k) % n] for p in range(n)), (
                block,
                k,
            )
    assert len(seen) >= 4  # reshuffled in each block; there are only 24 circles of 5


@pytest.mark.parametrize("n", [3, 6, 12, 63, 300])
def test_hypercube_of_other_sizes(n):
    with pytest.raises(SizeError, match=f"needs a power of two, got n={n}"):
        one_peer_hypercube(n)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: one_peer_exponential(4, order="shuffled"),
            ValueError,
            "order must be one of sequential, random, got 'shuffled'",
        ),
        (lambda: one_peer_exponential(4, order=None), ValueError, "random, got None"),
        (lambda: one_peer_exponential(4, "random", -1), ValueError, "seed .*at least 0, got -1"),
        (lambda: dissemination(4, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: dissemination(4, seed=0.5), TypeError, r"seed must be an int, not 0\.5"),
        (lambda: dissemination(4, seed=None), TypeError, "seed must be an int, not None"),
    ],
)
def test_refused_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
