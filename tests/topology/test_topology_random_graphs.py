"""Random regular and Erdos-Renyi graphs: degrees, chance, connection, refused arguments."""

import math
from collections import Counter

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    SizeError,
    consensus_rate,
    erdos_renyi,
    fingerprint,
    fully_connected,
    random_regular,
    ring,
)


def joined(graph):
    """The undirected edges {(i, j), ...} with i < j."""
    return frozenset((i, j) for i, j in graph.edges if i < j)


def degrees(graph):
    return {out - 1 for _, out in graph.out_degree}  # every rank has a self-loop


@pytest.mark.parametrize("n", [6, 7, 12, 20])
def test_random_regular_of_every_degree(n):
    for degree in range(2, n):
        if n * degree % 2:
            continue
        graph = random_regular(n, degree, seed=1)
        assert degrees(graph) == {degree}
        assert {w for *_, w in graph.edges.data("weight")} == {1 / (1 + degree)}
        assert nx.is_strongly_connected(graph)


def test_random_regular_default_degree():
    for n, degree in {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 4, 301: 4}.items():
        assert degrees(random_regular(n)) == {degree}


def test_random_regular_with_all_others_is_fully_connected():
    for n in (1, 2, 3, 8, 9):
        assert fingerprint(random_regular(n, n - 1, seed=4)) == fingerprint(fully_connected(n))


def test_random_regular_of_degree_2_is_a_ring_in_any_order():
    rings = Counter(joined(random_regular(5, 2, seed)) for seed in range(240))
    assert len(rings) == math.factorial(4) // 2
    assert max(rings.values()) < 2.5 * 20  # 20 of each on average
    assert nx.is_isomorphic(random_regular(30, 2), ring(30))


def test_random_regular_is_nearly_uniform():
    # 70 graphs on 6 labelled ranks have degree 3: 10 are K(3,3), 60 are prisms.
    seen = Counter(joined(random_regular(6, 3, seed)) for seed in range(700))
    assert len(seen) == 70
    assert max(seen.values()) < 2.5 * 10
    bipartite = sum(count for edges, count in seen.items() if nx.is_bipartite(nx.Graph(edges)))
    assert 0.10 < bipartite / 700 < 0.19  # 1/7 = 0.143


@pytest.mark.parametrize("degree", [3, 4, 8])
def test_random_regular_graphs_are_expanders(degree):
    limit = (1 + 2 * math.sqrt(degree - 1)) / (1 + degree)
    for n in (128, 300, 512):
        assert consensus_rate(random_regular(n, degree)) == pytest.approx(limit, rel=0.04)
    assert consensus_rate(ring(300)) > 0.999


def test_erdos_renyi_has_edges_at_random():
    n, p = 40, 0.4
    counts = Counter()
    for seed in range(30):
        counts.update(joined(erdos_renyi(n, p, seed)))
    pairs = n * (n - 1) / 2
    deviation = math.sqrt(p * (1 - p) / (30 * pairs))
    assert counts.total() / (30 * pairs) == pytest.approx(p, abs=4 * deviation)
    assert len(counts) == pairs
    assert max(counts.values()) < 26  # of 30: P(Binomial(30, 0.4) > 25) = 1e-7


def test_erdos_renyi_default_p():
    for n in (100, 300):
        mean_degree = np.mean([2 * len(joined(erdos_renyi(n, seed=s))) / n for s in range(8)])
        assert mean_degree == pytest.approx(2 * math.log(n), rel=0.06)
    assert [len(joined(erdos_renyi(n))) for n in (1, 2)] == [0, 1]


def test_erdos_renyi_is_drawn_again_until_it_is_connected():
    # At this p a draw of 20 ranks is disconnected about three times in four.
    for seed in range(20):
        assert nx.is_strongly_connected(erdos_renyi(20, 0.12, seed))


def test_erdos_renyi_of_probability_1_is_fully_connected():
    for n in (1, 2, 9):
        assert fingerprint(erdos_renyi(n, 1)) == fingerprint(fully_connected(n))


def test_erdos_renyi_that_is_never_connected():
    with pytest.raises(
        ValueError, match=r"none of 100 .* n=50 ranks with p=0\.01 was .* ln\(n\)/n = 0\.0782"
    ):
        erdos_renyi(50, 0.01)


def test_draws_do_not_change_between_releases():
    # Ranks of one job may run different builds. Recompute only with a reason in the changelog.
    assert joined(random_regular(6, 3, seed=3)) == {
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 4),
        (1, 5),
        (2, 3),
        (2, 4),
        (3, 5),
        (4, 5),
    }
    assert joined(random_regular(6, 2, seed=3)) == {(0, 2), (0, 4), (1, 4), (1, 5), (2, 3), (3, 5)}
    assert joined(erdos_renyi(6, seed=3)) == {
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 5),
        (1, 3),
        (1, 4),
        (2, 4),
        (3, 4),
        (3, 5),
    }


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random_regular(7, 3), SizeError, "odd degree=3 needs an even n, not n=7"),
        (lambda: random_regular(7, 7), ValueError, "among n=7 has at most 6 .*not degree=7"),
        (lambda: random_regular(1, 4), ValueError, "among n=1 has at most 0 .*not degree=4"),
        (lambda: random_regular(7, 1), ValueError, "degree must be at least 2, got 1"),
        (lambda: random_regular(2, 0), ValueError, "degree must be at least 1, got 0"),
        (lambda: random_regular(7, -1), ValueError, "degree must be at least 2, got -1"),
        (lambda: random_regular(7, 2.0), TypeError, r"degree must be an int, not 2\.0"),
        (lambda: random_regular(7, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: erdos_renyi(7, 0), ValueError, "p must be above 0 and at most 1, got 0"),
        (lambda: erdos_renyi(7, 1.5), ValueError, r"p must be .* got 1\.5"),
        (lambda: erdos_renyi(7, math.nan), ValueError, "p must be .* got nan"),
        (lambda: erdos_renyi(7, seed=1.5), TypeError, r"seed must be an int, not 1\.5"),
    ],
)
def test_refused_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
