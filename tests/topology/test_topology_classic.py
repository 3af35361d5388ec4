"""Ring, star and complete graph: structure, weights, convergence, refused arguments."""

import math

import numpy as np
import pytest

from bluefog_pg.topology import (
    consensus_rate,
    fully_connected,
    is_doubly_stochastic,
    mixing_matrix,
    ring,
    star,
)


def sends(graph, rank=0):
    """{destination: weight} of one rank, its self-loop included."""
    return {dst: graph[rank][dst]["weight"] for dst in graph[rank]}


def test_ring_directions():
    third = 1 / 3
    assert sends(ring(5)) == {0: third, 1: third, 4: third}
    assert sends(ring(5, "left")) == {0: 0.5, 4: 0.5}
    assert sends(ring(5, "right")) == {0: 0.5, 1: 0.5}
    for direction in ("both", "left", "right"):
        assert sends(ring(2, direction)) == {0: 0.5, 1: 0.5}


def test_star_weights():
    graph = star(5, center=2)
    assert sends(graph, 2) == dict.fromkeys(range(5), 0.2)
    assert sends(graph, 4) == {4: 0.8, 2: 0.2}


def test_variants_are_doubly_stochastic():
    for n in range(1, 65):
        for graph in (ring(n, "left"), ring(n, "right"), star(n, center=n - 1)):
            assert is_doubly_stochastic(graph, atol=1e-14), n


@pytest.mark.parametrize("make", [ring, star, fully_connected])
def test_symmetric_families(make):
    for n in range(1, 65):
        w = mixing_matrix(make(n))
        np.testing.assert_array_equal(w, w.T)


RHO = {
    ring: [0.805, 0.949, 0.987, 0.997],
    lambda n: ring(n, "left"): [0.924, 0.981, 0.995, 0.999],
    lambda n: ring(n, "right"): [0.924, 0.981, 0.995, 0.999],
    star: [0.875, 0.938, 0.969, 0.984],
    fully_connected: [0, 0, 0, 0],
}


@pytest.mark.parametrize(("make", "rho"), RHO.items())
def test_consensus_rate_reference_values(make, rho):
    assert [consensus_rate(make(n)) for n in (8, 16, 32, 64)] == pytest.approx(rho, abs=6e-4)


def test_consensus_rate_closed_forms():
    for n in range(4, 65):
        angle = 2 * math.pi / n
        assert consensus_rate(ring(n)) == pytest.approx(1 / 3 + 2 / 3 * math.cos(angle), abs=1e-12)
        one_way = consensus_rate(ring(n, "right"))
        assert one_way == pytest.approx(math.cos(angle / 2), abs=1e-12)
        assert consensus_rate(star(n)) == pytest.approx(1 - 1 / n, abs=1e-12)
    assert consensus_rate(ring(300)) == pytest.approx(0.99985, abs=6e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring(4, "up"), "both, left, right, got 'up'"),
        (lambda: star(4, center=4), r"0\.\.3, got 4"),
        (lambda: star(4, center=-1), r"0\.\.3, got -1"),
    ],
)
def test_refused_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
