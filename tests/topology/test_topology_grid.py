"""Mesh, torus and hypercube: neighbours, weights, spectrum, shapes that don't fit."""

import math

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    SizeError,
    consensus_rate,
    fingerprint,
    fully_connected,
    hypercube,
    is_doubly_stochastic,
    mesh2d,
    mixing_matrix,
    ring,
    torus2d,
)

SHAPES = [(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (2, 3), (2, 7), (3, 3), (4, 6), (7, 5)]


def weights(graph, rank=0):
    """{destination: weight} of one rank, its self-loop included."""
    return {dst: graph[rank][dst]["weight"] for dst in graph[rank]}


def spectrum(graph):
    w = mixing_matrix(graph)
    np.testing.assert_array_equal(w, w.T)
    return np.linalg.eigvalsh(w)


def test_mesh2d_is_row_major_without_wrap_around():
    assert set(mesh2d(6)[0]) == {0, 1, 3}  # 2 x 3
    assert set(mesh2d(6, shape=(3, 2))[0]) == {0, 1, 2}
    assert set(mesh2d(6)[4]) == {1, 3, 4, 5}
    # Degrees 2 (corner), 3 (edge) and 4 (inside): 1 / (1 + the larger of the two).
    graph = mesh2d(9)
    assert weights(graph, 0) == {0: pytest.approx(1 / 2), 1: 1 / 4, 3: 1 / 4}
    assert weights(graph, 4) == dict.fromkeys([4, 1, 3, 5, 7], 1 / 5)


@pytest.mark.parametrize("make", [mesh2d, torus2d])
@pytest.mark.parametrize(("n", "rows"), [(8, 2), (12, 3), (16, 4), (7, 1), (36, 6)])
def test_default_shape_is_the_closest_factors(make, n, rows):
    assert nx.utils.graphs_equal(make(n), make(n, (rows, n // rows)))


def test_mesh2d_reference_values():
    rates = [consensus_rate(mesh2d(n)) for n in (8, 16, 32, 64)]
    assert rates == pytest.approx([0.854, 0.869, 0.966, 0.968], abs=6e-4)


def test_a_line_is_a_mesh():
    for n in range(1, 65):
        graph = mesh2d(n, shape=(n, 1))
        assert {(i, j) for i, j in graph.edges if i != j} == {
            (i, j) for i in range(n) for j in range(n) if abs(i - j) == 1
        }
        assert is_doubly_stochastic(graph, atol=1e-14), n


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_torus2d_neighbours(rows, columns):
    graph = torus2d(rows * columns, (rows, columns))
    for r in range(rows):
        for c in range(columns):
            around = {((r + d) % rows, c) for d in (-1, 0, 1)}
            around |= {(r, (c + d) % columns) for d in (-1, 0, 1)}
            expected = {i * columns + j: 1 / len(around) for i, j in around}
            assert weights(graph, r * columns + c) == expected


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_torus2d_spectrum(rows, columns):
    def around(size):
        """Eigenvalues of the adjacency matrix of a ring: 1 rank has no neighbour, 2 have one."""
        return {1: [0], 2: [1, -1]}.get(
            size, [2 * math.cos(2 * math.pi * k / size) for k in range(size)]
        )

    degree = around(rows)[0] + around(columns)[0]
    expected = [(1 + a + b) / (1 + degree) for a in around(rows) for b in around(columns)]
    graph = torus2d(rows * columns, (rows, columns))
    np.testing.assert_allclose(spectrum(graph), sorted(expected), rtol=0, atol=1e-13)
    rest = np.delete(expected, 0)
    assert consensus_rate(graph) == pytest.approx(abs(rest).max(initial=0), abs=1e-12)


def test_torus2d_of_one_row_is_a_ring():
    for n in (1, 2, 3, 7, 13):
        assert fingerprint(torus2d(n, (1, n))) == fingerprint(ring(n))
        assert fingerprint(torus2d(n, (n, 1))) == fingerprint(ring(n))
    assert fingerprint(torus2d(13)) == fingerprint(ring(13))


def test_small_tori_are_other_graphs_in_another_order():
    assert nx.is_isomorphic(torus2d(4), ring(4))  # 2 x 2
    assert nx.is_isomorphic(torus2d(16), hypercube(16))  # 4 x 4


def test_hypercube_neighbours_differ_in_one_bit():
    for k in range(7):
        n = 2**k
        expected = {
            (i, j): 1 / (1 + k) for i in range(n) for j in range(n) if (i ^ j).bit_count() <= 1
        }
        assert nx.get_edge_attributes(hypercube(n), "weight") == expected
    assert fingerprint(hypercube(2)) == fingerprint(fully_connected(2))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_hypercube_spectrum(k):
    # The eigenvalue 1 - 2b/(1 + k) belongs to the k over b sets of b bits.
    expected = [1 - 2 * mask.bit_count() / (1 + k) for mask in range(2**k)]
    np.testing.assert_allclose(spectrum(hypercube(2**k)), sorted(expected), rtol=0, atol=1e-13)
    assert consensus_rate(hypercube(2**k)) == pytest.approx(1 - 2 / (1 + k), abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 12, 33, 63, 65, 300])
def test_hypercube_of_other_sizes(n):
    with pytest.raises(SizeError, match=rf"hypercube exists for n = 1, 2, 4, .* not for n={n}$"):
        hypercube(n)


@pytest.mark.parametrize("make", [mesh2d, torus2d])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2), "2 x 2 holds 4 ranks, not n=6"),
        ((-2, -3), "at least 1, got -2 x -3"),
        ((0, 6), "at least 1, got 0 x 6"),
        ((1, 2, 3), r"two ints .*got \(1, 2, 3\)"),
        ((6,), r"two ints .*got \(6,\)"),
        ((1.5, 4), r"two ints .*got \(1\.5, 4\)"),
        (6, "two ints .*got 6"),
    ],
)
def test_refused_shapes(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make(6, shape)
