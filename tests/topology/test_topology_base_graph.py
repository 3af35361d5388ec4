"""Hyper-cuboid and Base-(k+1) graphs: exact, of bounded degree, as short as published."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
from topology_rounds import assert_doubly_stochastic, degrees, edges, matrix, period_error

from bluefog_pg.topology import SizeError, base_graph, hyper_cuboid, one_peer_hypercube, rounds

LENGTHS = {
    1: {
        5: 5, 6: 4, 7: 5, 12: 5, 17: 9, 25: 9, 31: 9, 33: 11, 48: 7, 100: 11, 129: 15, 130: 14,
        300: 15,
    },
    2: {5: 3, 6: 2, 7: 4, 17: 5, 25: 6, 31: 7, 33: 6, 100: 8, 130: 9},
    4: {25: 2, 31: 5, 100: 3, 130: 6},
}  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_graph_is_exact_with_degree_k(k):
    for n in range(1, 131):
        schedule = base_graph(n, k)
        for graph in rounds(schedule):
            assert_doubly_stochastic(graph, (n, k))
            assert max(degrees(graph)) <= k, (n, k)
            assert (matrix(graph) == matrix(graph).T).all(), (n, k)
        assert period_error(schedule) <= 1e-14, (n, k)
        assert schedule.period <= 2 * math.log(n, k + 1) + 2 + 1e-9, (n, k)


@pytest.mark.parametrize("k", LENGTHS)
def test_base_graph_lengths(k):
    assert {n: base_graph(n, k).period for n in LENGTHS[k]} == LENGTHS[k]


def test_base_graph_defaults_to_one_peer():
    assert nx.utils.graphs_equal(base_graph(7)(2), base_graph(7, 1)(2))
    assert base_graph(300).period == 15


def test_simple_base_graph_of_five_by_hand():
    # 5 = 101b: the first four average; then 4 meets 0, which brings 4 to the mean of all and the
    # sum of the four to their share of it, so that they average once more.
    schedule = base_graph(5, 1)
    assert [degrees(graph) for graph in rounds(schedule)] == [(1, 1)] * 5
    pairs = [{(s, d) for s, d in edges(graph) if s < d} for graph in rounds(schedule)]
    assert pairs == [
        {(0, 1), (2, 3)},
        {(0, 2), (1, 3)},
        {(0, 4)},
        {(0, 1), (2, 3)},
        {(0, 2), (1, 3)},
    ]
    meeting = edges(schedule(2))
    assert meeting[0, 4] == meeting[4, 0] == 4 / 5
    assert (meeting[0, 0], meeting[4, 4]) == (pytest.approx(1 / 5), pytest.approx(1 / 5))
    assert [meeting[i, i] for i in (1, 2, 3)] == [1.0] * 3  # idle


def test_base_graph_without_large_primes_is_the_hyper_cuboid():
    for k in (1, 2, 3, 4):
        for n in (n for n in range(1, 101) if exists(n, k)):
            base, cuboid = base_graph(n, k), hyper_cuboid(n, k)
            assert base.period == cuboid.period
            assert all(map(nx.utils.graphs_equal, rounds(base), rounds(cuboid))), (n, k)


def test_base_graph_with_enough_peers_is_one_average():
    for n in range(2, 12):
        schedule = base_graph(n, n - 1)
        assert schedule.period == 1
        assert set(edges(schedule(0)).values()) == {1 / n}
        assert len(edges(schedule(0))) == n * n
        assert base_graph(n, n + 5).period == 1


def exists(n, k):
    try:
        hyper_cuboid(n, k)
    except SizeError:
        return False
    return True


def test_hyper_cuboid_is_exact():
    for n in [*range(1, 49), 96, 100, 127, 130, 300, 512]:
        schedule = hyper_cuboid(n)
        for graph in rounds(schedule):
            assert_doubly_stochastic(graph, n)
        assert period_error(schedule) <= 1e-14, n


def test_hyper_cuboid_with_k_is_exact_and_as_short_as_any_factorization():
    def shortest(n, most):
        """Brute force over multisets of factors."""
        for count in itertools.count():
            for factors in itertools.combinations_with_replacement(range(2, most + 1), count):
                if math.prod(factors) == n:
                    return count

    for k in (1, 2, 3, 5):
        smooth = [n for n in range(1, 65) if max(primes(n), default=1) <= k + 1]
        for n in range(1, 65):
            assert exists(n, k) == (n in smooth), (n, k)
        for n in smooth:
            schedule = hyper_cuboid(n, k)
            assert schedule.period == max(shortest(n, k + 1), 1), (n, k)
            assert max(max(degrees(graph)) for graph in rounds(schedule)) <= k
            assert period_error(schedule) <= 1e-14, (n, k)


def primes(n):
    return [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]


@pytest.mark.parametrize(
    ("n", "k", "degrees_of_rounds"),
    [
        (1, None, [0]),
        (12, None, [1, 1, 2]),
        (12, 2, [1, 1, 2]),
        (12, 3, [2, 3]),
        (36, 8, [5, 5]),  # and not 4 x 9
        (17, None, [16]),
        (300, None, [1, 1, 2, 4, 4]),
        (300, 9, [4, 5, 9]),
        (8, 100, [7]),
    ],
)
def test_hyper_cuboid_factors(n, k, degrees_of_rounds):
    assert [degrees(g)[0] for g in rounds(hyper_cuboid(n, k))] == degrees_of_rounds


def test_hyper_cuboid_averages_along_one_digit():
    first, second = rounds(hyper_cuboid(6))
    x = np.arange(6.0)
    np.testing.assert_array_equal(matrix(first) @ x, [0.5, 0.5, 2.5, 2.5, 4.5, 4.5])
    np.testing.assert_allclose(matrix(second) @ x, [2, 3, 2, 3, 2, 3], rtol=0, atol=1e-15)
    assert set(edges(second).values()) == {1 / 3}


def test_hyper_cuboid_of_powers_of_two_is_the_hypercube():
    for n in (1, 2, 8, 32):
        both = zip(rounds(hyper_cuboid(n)), rounds(one_peer_hypercube(n)), strict=True)
        assert all(nx.utils.graphs_equal(*graphs) for graphs in both)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: base_graph(5, 0), ValueError, "k must be at least 1, got 0"),
        (lambda: base_graph(5, k=-1), ValueError, "k must be at least 1, got -1"),
        (lambda: base_graph(5, k=1.0), TypeError, r"k must be an int, not 1\.0"),
        (lambda: base_graph(5, k=None), TypeError, "k must be an int, not None"),
        (lambda: hyper_cuboid(8, k=0), ValueError, "k must be at least 1, got 0"),
        (lambda: hyper_cuboid(8, k="2"), TypeError, "k must be an int, not '2'"),
        (
            lambda: hyper_cuboid(60, k=3),
            SizeError,
            r"k=3 needs .* prime factors are at most 4, got n=60 = 2 \* 2 \* 3 \* 5",
        ),
        (lambda: hyper_cuboid(3, k=1), SizeError, "k=1 needs .* at most 2, got n=3 = 3"),
    ],
)
def test_refused_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
