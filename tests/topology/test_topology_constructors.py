"""Static graphs and one-peer exponential: structure, weights, convergence, refused arguments."""

import math

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    consensus_rate,
    exponential,
    fully_connected,
    get,
    is_doubly_stochastic,
    mesh2d,
    mixing_matrix,
    names,
    one_peer_exponential,
    ring,
    rounds,
    star,
    validate,
)

SIZES = range(1, 65)

VARIANTS = {
    "ring left": lambda n: ring(n, direction="left"),
    "ring right": lambda n: ring(n, "right"),
    "star around the last": lambda n: star(n, center=n - 1),
    "line": lambda n: mesh2d(n, shape=(n, 1)),
    "exponential base 3": lambda n: exponential(n, base=3),
    "exponential base 4": lambda n: exponential(n, base=4),
    **{name: get(name) for name in names()},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_round_is_doubly_stochastic_with_float_weights(name):
    for n in SIZES:
        topology = VARIANTS[name](n)
        validate(topology, n)
        for graph in rounds(topology):
            assert list(graph) == list(range(n)), n
            assert all(graph.has_edge(i, i) for i in graph), n
            assert all(type(w) is float and w > 0 for *_, w in graph.edges.data("weight")), n
            assert is_doubly_stochastic(graph, atol=1e-14), n


@pytest.mark.parametrize("name", VARIANTS)
def test_one_rank_keeps_its_value(name):
    for graph in rounds(VARIANTS[name](1)):
        assert list(graph.edges.data("weight")) == [(0, 0, 1.0)]


@pytest.mark.parametrize("make", [ring, star, mesh2d, fully_connected])
def test_symmetric_families(make):
    for n in SIZES:
        w = mixing_matrix(make(n))
        np.testing.assert_array_equal(w, w.T)


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
    assert sends(graph, 2) == {
        2: pytest.approx(0.2), 0: 0.2, 1: 0.2, 3: 0.2, 4: 0.2,
    }  # fmt: skip
    assert sends(graph, 4) == {4: 0.8, 2: 0.2}


def test_mesh2d_is_row_major_without_wrap_around():
    assert set(mesh2d(6)[0]) == {0, 1, 3}  # 2 x 3
    assert set(mesh2d(6, shape=(3, 2))[0]) == {0, 1, 2}
    assert set(mesh2d(6)[4]) == {1, 3, 4, 5}
    # Degrees 2 (corner), 3 (edge) and 4 (inside): 1 / (1 + the larger of the two).
    graph = mesh2d(9)
    assert sends(graph, 0) == {0: pytest.approx(1 / 2), 1: 1 / 4, 3: 1 / 4}
    assert sends(graph, 4) == {4: pytest.approx(1 / 5), 1: 1 / 5, 3: 1 / 5, 5: 1 / 5, 7: 1 / 5}


@pytest.mark.parametrize(("n", "rows"), [(8, 2), (12, 3), (16, 4), (7, 1), (36, 6)])
def test_mesh2d_default_shape_is_the_closest_factors(n, rows):
    assert nx.utils.graphs_equal(mesh2d(n), mesh2d(n, (rows, n // rows)))


def test_exponential_offsets():
    assert set(exponential(10)[0]) == {0, 1, 2, 4, 8}
    assert set(exponential(9)[8]) == {8, 0, 1, 3, 7}
    assert set(sends(exponential(10)).values()) == {1 / 5}
    assert set(exponential(250, base=3)[0]) == {0, 1, 3, 9, 27, 81, 243}
    assert 243 not in exponential(243, base=3)[0]


RHO = {
    ring: [0.805, 0.949, 0.987, 0.997],
    lambda n: ring(n, "left"): [0.924, 0.981, 0.995, 0.999],
    lambda n: ring(n, "right"): [0.924, 0.981, 0.995, 0.999],
    star: [0.875, 0.938, 0.969, 0.984],
    mesh2d: [0.854, 0.869, 0.966, 0.968],
    fully_connected: [0, 0, 0, 0],
    exponential: [0.5, 0.6, 2 / 3, 0.7143],
    lambda n: exponential(n, 3): [0.577, 0.681, 0.660, 0.689],
    lambda n: exponential(n, 4): [0.745, 0.790, 0.809, 0.818],
}


@pytest.mark.parametrize(("make", "rho"), RHO.items())
def test_consensus_rate_reference_values(make, rho):
    assert [consensus_rate(make(n)) for n in (8, 16, 32, 64)] == pytest.approx(rho, abs=6e-4)


def test_consensus_rate_of_exponential():
    def bound(n):
        return 1 - 2 / (1 + math.ceil(math.log2(n)))

    for n in [*range(4, 130, 2), 300]:
        assert consensus_rate(exponential(n)) == pytest.approx(bound(n), abs=1e-12), n
    for n in range(5, 130, 2):
        assert consensus_rate(exponential(n)) < bound(n) - 1e-3, n
    assert consensus_rate(exponential(17)) == pytest.approx(0.548, abs=6e-4)
    assert consensus_rate(exponential(33)) == pytest.approx(0.608, abs=6e-4)


def test_consensus_rate_closed_forms():
    for n in range(4, 65):
        angle = 2 * math.pi / n
        assert consensus_rate(ring(n)) == pytest.approx(1 / 3 + 2 / 3 * math.cos(angle), abs=1e-12)
        one_way = consensus_rate(ring(n, "right"))
        assert one_way == pytest.approx(math.cos(angle / 2), abs=1e-12)
        assert consensus_rate(star(n)) == pytest.approx(1 - 1 / n, abs=1e-12)
    assert consensus_rate(ring(300)) == pytest.approx(0.99985, abs=6e-6)


def test_one_peer_exponential_rounds():
    schedule = one_peer_exponential(6)
    assert (schedule.size, schedule.period) == (6, 3)
    for step, hop in enumerate([1, 2, 4, 1, 2, 4]):
        expected = {(i, i): 0.5 for i in range(6)} | {(i, (i + hop) % 6): 0.5 for i in range(6)}
        assert nx.get_edge_attributes(schedule(step), "weight") == expected
    assert one_peer_exponential(1).period == 1
    assert [one_peer_exponential(n).period for n in (2, 3, 4, 5, 8, 9, 300)] == [
        1,
        2,
        2,
        3,
        3,
        4,
        9,
    ]


def residual(n):
    """||W_{tau-1} ... W_0 - J||_2 of one-peer exponential."""
    product = np.eye(n)
    for graph in rounds(one_peer_exponential(n)):
        product = mixing_matrix(graph) @ product
    return np.linalg.norm(product - 1 / n, ord=2)


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


@pytest.mark.parametrize("name", names())
def test_sizes_that_are_refused(name):
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"at least 1 rank, got n={n}"):
            get(name)(n)
    with pytest.raises(TypeError, match=r"must be an int, not 2\.5"):
        get(name)(2.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring(4, "up"), "both, left, right, got 'up'"),
        (lambda: star(4, center=4), r"0\.\.3, got 4"),
        (lambda: star(4, center=-1), r"0\.\.3, got -1"),
        (lambda: mesh2d(6, (2, 2)), "2 x 2 holds 4 ranks, not n=6"),
        (lambda: mesh2d(6, (-2, -3)), "at least 1, got -2 x -3"),
        (lambda: mesh2d(6, (1, 2, 3)), r"two ints .*got \(1, 2, 3\)"),
        (lambda: mesh2d(6, (1.5, 4)), r"two ints .*got \(1\.5, 4\)"),
        (lambda: exponential(4, base=1), "at least 2, got 1"),
        (lambda: exponential(4, base=-2), "at least 2, got -2"),
    ],
)
def test_refused_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_base_that_is_no_int():
    with pytest.raises(TypeError, match=r"base must be an int, not 2\.0"):
        exponential(4, base=2.0)
