"""Exponential graphs, static and one-peer: structure, weights, convergence, refused arguments."""

import math

import networkx as nx
import numpy as np
import pytest
from topology_rounds import matrix

from bluefog_pg.topology import (
    consensus_rate,
    exponential,
    is_doubly_stochastic,
    mixing_matrix,
    one_peer_exponential,
    rounds,
    symmetric_exponential,
)


def hops(graph):
    """Whom rank 0 sends to, itself included."""
    return set(graph[0])


def circulant_rate(graph):
    """||W - J||_2 by the Fourier transform of what rank 0 gives to whom."""
    weights = np.zeros(len(graph))
    weights[[*graph[0]]] = [edge["weight"] for edge in graph[0].values()]
    return abs(np.fft.fft(weights)[1:]).max()


def test_exponential_offsets():
    assert hops(exponential(10)) == {0, 1, 2, 4, 8}
    assert set(exponential(9)[8]) == {8, 0, 1, 3, 7}
    assert {w for *_, w in exponential(10).edges.data("weight")} == {1 / 5}
    assert hops(exponential(250, base=3)) == {0, 1, 3, 9, 27, 81, 243}
    assert 243 not in exponential(243, base=3)[0]


def test_symmetric_exponential_offsets():
    assert hops(symmetric_exponential(10)) == {0, 1, 2, 4, 6, 8, 9}
    assert hops(symmetric_exponential(8)) == {0, 1, 2, 4, 6, 7}  # 4 is its own way back
    assert hops(symmetric_exponential(9)) == {0, 1, 2, 4, 5, 7, 8}
    assert hops(symmetric_exponential(33, base=4)) == {0, 1, 4, 16, 17, 29, 32}
    assert hops(symmetric_exponential(486, base=3)) >= {243}
    assert 243 not in hops(symmetric_exponential(485, base=3))
    assert set(symmetric_exponential(10)[9]) == {9, 0, 1, 3, 5, 7, 8}
    assert {w for *_, w in symmetric_exponential(10).edges.data("weight")} == {1 / 7}


@pytest.mark.parametrize("base", [2, 3, 4, 7])
def test_bases(base):
    for n in range(1, 65):
        assert is_doubly_stochastic(exponential(n, base), atol=1e-14), n
        w = mixing_matrix(symmetric_exponential(n, base))
        np.testing.assert_array_equal(w, w.T)
        assert is_doubly_stochastic(symmetric_exponential(n, base), atol=1e-14), n
        neighbours = len(hops(symmetric_exponential(n, base))) - 1
        assert neighbours <= 2 * math.log(max(n, 2), base) + 2
        if base == 2:
            assert neighbours <= 2 * (n.bit_length() - 1)


RHO = {
    exponential: [0.5, 0.6, 2 / 3, 0.7143],
    lambda n: exponential(n, 3): [0.577, 0.681, 0.660, 0.689],
    lambda n: exponential(n, 4): [0.745, 0.790, 0.809, 0.818],
    lambda n: symmetric_exponential(n, 4): [0.5, 0.6, 2 / 3, 0.7143],
}


@pytest.mark.parametrize(("make", "rho"), RHO.items())
def test_consensus_rate_reference_values(make, rho):
    assert [consensus_rate(make(n)) for n in (8, 16, 32, 64)] == pytest.approx(rho, abs=6e-4)


def test_consensus_rate_of_exponential():
    def bound(n):
        return 1 - 2 / (1 + math.ceil(math.log2(n)))

    for n in range(4, 302, 2):
        assert circulant_rate(exponential(n)) == pytest.approx(bound(n), abs=1e-12), n
        assert circulant_rate(exponential(n + 1)) < bound(n + 1) - 1e-3, n + 1
    for n in (4, 6, 34, 64, 130, 300):
        assert consensus_rate(exponential(n)) == pytest.approx(bound(n), abs=1e-12), n
    assert consensus_rate(exponential(17)) == pytest.approx(0.548, abs=6e-4)
    assert consensus_rate(exponential(33)) == pytest.approx(0.608, abs=6e-4)


def test_consensus_rate_of_symmetric_exponential():
    # Eigenvalue j of a symmetric circulant: the mean of cos(2 pi j d / n) over its offsets d.
    for n in [*range(2, 34), 63, 64, 100, 129]:
        for base in (2, 4):
            graph = symmetric_exponential(n, base)
            angles = 2 * math.pi / n * np.outer(range(1, n), sorted(hops(graph)))
            expected = abs(np.cos(angles).mean(axis=1)).max()
            assert consensus_rate(graph) == pytest.approx(expected, abs=1e-12), n


def test_one_peer_exponential_rounds():
    schedule = one_peer_exponential(6)
    assert (schedule.size, schedule.period) == (6, 3)
    for step, hop in enumerate([1, 2, 4, 1, 2, 4]):
        expected = {(i, i): 0.5 for i in range(6)} | {(i, (i + hop) % 6): 0.5 for i in range(6)}
        assert nx.get_edge_attributes(schedule(step), "weight") == expected
    periods = {1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 8: 3, 9: 4, 300: 9}
    assert {n: one_peer_exponential(n).period for n in periods} == periods


def residual(n):
    """||W_{tau-1} ... W_0 - J||_2 of one-peer exponential: a circulant, so one column tells all."""
    column = np.eye(n)[0]
    for graph in rounds(one_peer_exponential(n)):
        column = matrix(graph) @ column
    return abs(np.fft.fft(column)[1:]).max(initial=0)


def test_one_peer_exponential_is_exact_for_powers_of_two_only():
    for n in range(1, 130):
        is_power = n & (n - 1) == 0
        assert (residual(n) < 1e-14) if is_power else (residual(n) > 1e-3), n


@pytest.mark.parametrize(
    ("n", "expected"),
    [(6, 0.217), (12, 0.209), (17, 0.061), (33, 0.031), (48, 0.207), (100, 0.192), (130, 0.0156)],
)
def test_one_peer_exponential_residuals(n, expected):
    assert residual(n) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("make", [exponential, symmetric_exponential])
def test_refused_bases(make):
    for base in (1, 0, -2):
        with pytest.raises(ValueError, match=f"base must be at least 2, got {base}"):
            make(4, base=base)
    with pytest.raises(TypeError, match=r"base must be an int, not 2\.0"):
        make(4, base=2.0)
