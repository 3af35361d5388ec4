"""OD- and OU-EquiDyn and random matching: what is drawn, and how fast it mixes."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from topology_rounds import destination, edges, matrix

from bluefog_pg.topology import equi_dyn, random_matching


def factor(graphs):
    """The mean of ||Wx - mean||^2 over the graphs, as the largest factor on ||x - mean||^2."""
    matrices = [matrix(graph) for graph in graphs]
    mean = np.mean([w.T @ w for w in matrices], axis=0)
    return np.linalg.norm(mean - 1 / len(mean), ord=2)


def isotropic_factor(graphs):
    """The same for an x without preferred direction: the mean of all factors, not the largest."""
    n = len(graphs[0])
    norms = [np.linalg.norm(matrix(graph) - 1 / n) ** 2 for graph in graphs]
    return np.mean(norms) / (n - 1)


def pairs(graph):
    return frozenset((i, j) for i, j in edges(graph) if i < j)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 17, 33])
def test_directed_factor_over_all_shifts(n):
    def all_shifts(**options):
        return [equi_dyn(n, shifts=[s], **options)(0) for s in range(1, n)]

    assert factor(all_shifts(eta=0.5)) == pytest.approx((1 - 1 / n) / 2, abs=1e-14)
    best = (n - 2) / (2 * (n - 1))
    assert factor(all_shifts()) == pytest.approx(best, abs=1e-14)
    for eta in (0.4, 0.6, 1.0):
        assert factor(all_shifts(eta=eta)) >= best


def test_directed_factor_in_exact_numbers():
    # (1 - 1/n)/2 of ||x||^2 for a mean of 0, in rationals; the graph's weights are those numbers.
    n, eta = 5, Fraction(1, 2)
    own, heard = 1 - eta + eta / n, eta * (n - 1) / n
    x = [Fraction(v) for v in (3, -1, 4, -7, 1)]
    assert sum(x) == 0
    total = sum(
        sum((own * x[i] + heard * x[(i - s) % n]) ** 2 for i in range(n)) for s in range(1, n)
    )
    assert total / (n - 1) == (1 - Fraction(1, n)) / 2 * sum(v * v for v in x)
    graph = equi_dyn(n, eta=0.5, shifts=[2])(0)
    assert graph[0][0]["weight"] == pytest.approx(float(own), abs=1e-16)
    assert graph[0][2]["weight"] == pytest.approx(float(heard), abs=1e-16)


def test_default_eta_makes_all_weights_one_half():
    for directed, n in itertools.product((True, False), (2, 3, 17, 64)):
        assert set(edges(equi_dyn(n, directed)(1)).values()) <= {0.5, 1.0}
        explicit = equi_dyn(n, directed, eta=n / (2 * (n - 1)))(1)
        assert edges(explicit) == pytest.approx(edges(equi_dyn(n, directed)(1)), abs=1e-15)
    assert pytest.approx(0.53, abs=0.002) == 17 / (2 * 16)  # the published one


@pytest.mark.parametrize("n", [2, 3, 6, 17])
def test_directed_shifts_are_uniform(n):
    schedule = equi_dyn(n, seed=5)
    drawn = Counter()
    for step in range(60 * (n - 1)):
        graph = schedule(step)
        (shift,) = {(destination(graph, i) - i) % n for i in range(n)}
        drawn[shift] += 1
    assert set(drawn) == set(range(1, n))
    assert all(30 <= count <= 95 for count in drawn.values())  # 60 of each on average


def matching(n, shift, start):
    """OU-EquiDyn's scan: from start on, i and i + shift are paired where both are still free."""
    free, found = set(range(n)), set()
    for place in range(n):
        i, j = (start + place) % n, (start + place + shift) % n
        if i in free and j in free:
            free -= {i, j}
            found.add((min(i, j), max(i, j)))
    return frozenset(found)


@pytest.mark.parametrize("n", [2, 3, 5, 6, 8, 9])
def test_undirected_rounds_are_the_scans_from_every_start(n):
    for shift in range(1, n):
        schedule = equi_dyn(n, directed=False, shifts=[shift])
        expected = {matching(n, shift, start) for start in range(n)}
        assert {pairs(schedule(step)) for step in range(30 * n)} == expected, shift


@pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 17, 33, 64])
def test_undirected_factor(n):
    # With weights 1/2 a pair takes 1/(n - 1) of the error away, on average over x.
    cases = list(itertools.product(range(1, n), range(n)))
    expected = 1 - np.mean([len(matching(n, *case)) for case in cases]) / (n - 1)
    schedule = equi_dyn(n, directed=False)
    sampled = isotropic_factor([schedule(step) for step in range(300)])
    assert sampled == pytest.approx(expected, abs=0.01)
    if n >= 16:
        assert 0.52 <= expected <= 0.56


def test_undirected_factor_at_the_eta_of_the_theory():
    for n, low, high in ((16, 0.51, 0.54), (17, 0.52, 0.55), (33, 0.53, 0.56)):
        schedule = equi_dyn(n, directed=False, eta=0.5)
        assert low <= isotropic_factor([schedule(step) for step in range(300)]) <= high


def test_undirected_weights():
    n = 5
    for step in range(20):
        graph = equi_dyn(n, directed=False, eta=0.8)(step)
        w = matrix(graph)
        np.testing.assert_array_equal(w, w.T)
        left_over = [i for i in range(n) if destination(graph, i) == i]
        assert [graph[i][i]["weight"] for i in left_over] == [1.0] * len(left_over)
        for i, j in pairs(graph):  # (1 - eta) + eta/n and eta (n-1)/n
            assert graph[i][i]["weight"] == pytest.approx(0.36)
            assert graph[i][j]["weight"] == pytest.approx(0.64)


def test_given_shifts_only():
    schedule = equi_dyn(12, seed=1, shifts=iter([3, 3, 3, 5]))
    drawn = Counter((destination(schedule(step), 0)) for step in range(400))
    assert set(drawn) == {3, 5}
    assert 260 <= drawn[3] <= 340  # three times as often


def all_matchings(ranks):
    """All perfect matchings of an even list, as frozensets of pairs."""
    if not ranks:
        return {frozenset()}
    first, *rest = ranks
    return {
        frozenset({(first, other)}) | more
        for other in rest
        for more in all_matchings([r for r in rest if r != other])
    }


@pytest.mark.parametrize(("n", "count"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 15)])
def test_random_matching_is_uniform_over_all_matchings(n, count):
    expected = all_matchings(range(n)) if n % 2 == 0 else set()
    for left_out in range(n % 2 * n):
        expected |= all_matchings([i for i in range(n) if i != left_out])
    assert len(expected) == count
    schedule = random_matching(n, seed=2)
    drawn = Counter(pairs(schedule(step)) for step in range(60 * count))
    assert set(drawn) == expected
    assert all(30 <= times <= 95 for times in drawn.values())  # 60 of each on average


def test_random_matching_leaves_out_nobody_or_one():
    for n in range(1, 40):
        for step in range(3):
            graph = random_matching(n)(step)
            assert len(pairs(graph)) == n // 2
            loops = Counter(graph[i][i]["weight"] for i in graph)
            assert loops == Counter({0.5: n - n % 2}) + Counter({1.0: n % 2})
            assert all(edges(graph)[i, j] == edges(graph)[j, i] == 0.5 for i, j in pairs(graph))


@pytest.mark.parametrize(("n", "expected"), [(4, 1 / 3), (6, 2 / 5), (5, 1 / 2), (3, 1 / 2)])
def test_random_matching_factor(n, expected):
    # All matchings once each: the docstring's closed forms.
    schedule, graphs = random_matching(n), {}
    for step in range(400):
        graphs[pairs(schedule(step))] = schedule(step)
    assert factor(graphs.values()) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("make", [equi_dyn, lambda n: equi_dyn(n, False), random_matching])
def test_a_lone_rank_keeps_its_value(make):
    assert make(1).period is None
    assert edges(make(1)(8)) == {(0, 0): 1.0}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: equi_dyn(5, eta=0), ValueError, r"eta must be in \(0, 1\], got 0"),
        (lambda: equi_dyn(5, eta=-0.5), ValueError, r"eta must be in \(0, 1\], got -0\.5"),
        (lambda: equi_dyn(5, eta=1.001), ValueError, r"eta must be in \(0, 1\], got 1\.001"),
        (lambda: equi_dyn(5, eta=float("nan")), ValueError, r"\(0, 1\], got nan"),
        (lambda: equi_dyn(5, eta="0.5"), TypeError, "eta must be a real number, not '0.5'"),
        (lambda: equi_dyn(5, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: random_matching(5, seed=-7), ValueError, "seed must be at least 0, got -7"),
        (lambda: random_matching(5, seed=1.5), TypeError, r"seed must be an int, not 1\.5"),
        (lambda: equi_dyn(5, shifts=[]), ValueError, r"must not be empty; .* all of 1\.\.n-1"),
        (lambda: equi_dyn(5, shifts=[2, 0]), ValueError, "a shift must be at least 1, got 0"),
        (lambda: equi_dyn(5, shifts=[2, 5]), ValueError, r"a shift must be in 1\.\.4, got 5"),
        (lambda: equi_dyn(5, shifts=[1.0]), TypeError, r"a shift must be an int, not 1\.0"),
        (lambda: equi_dyn(1, shifts=[1]), ValueError, "got 1"),
    ],
)
def test_refused_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
