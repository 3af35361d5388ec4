"""BlueFog's names for static graphs give BlueFog's values."""

import math

import networkx as nx
import numpy as np
import pytest

from bluefog_pg import topology
from bluefog_pg.topology import (
    ExponentialGraph,
    ExponentialTwoGraph,
    FullyConnectedGraph,
    GetRecvWeights,
    GetSendWeights,
    IsRegularGraph,
    IsTopologyEquivalent,
    MeshGrid2DGraph,
    RingGraph,
    StarGraph,
    SymmetricExponentialGraph,
    consensus_rate,
    isPowerOf,
    mixing_matrix,
    names,
    recv_weights,
)

SIZES = range(1, 65)


def adjacency(graph):
    return nx.to_numpy_array(graph, nodelist=range(len(graph)))


def circulant(n, distances):
    """Row 0 has equal weights at these distances, row i is row 0 moved on by i places."""
    row = np.zeros(n)
    row[list(distances)] = 1 / len(distances)
    return np.stack([np.roll(row, i) for i in range(n)])


def is_power(x, base):
    return x in {base**k for k in range(12)}


CIRCULANTS = {
    ExponentialTwoGraph: lambda d, n: d == 0 or is_power(d, 2),
    ExponentialGraph: lambda d, n: d == 0 or is_power(d, 2),
    lambda n: ExponentialGraph(n, base=3): lambda d, n: d == 0 or is_power(d, 3),
    lambda n: ExponentialGraph(n, 4): lambda d, n: d == 0 or is_power(d, 4),
    SymmetricExponentialGraph: lambda d, n: d == 0 or is_power(d if d <= n // 2 else n - d, 4),
    lambda n: SymmetricExponentialGraph(n, base=2): lambda d, n: (
        d == 0 or is_power(min(d, n - d), 2)
    ),
    RingGraph: lambda d, n: d in (0, 1, n - 1),
    lambda n: RingGraph(n, connect_style=1): lambda d, n: d in (0, n - 1),
    lambda n: RingGraph(n, 2): lambda d, n: d in (0, 1),
    FullyConnectedGraph: lambda d, n: True,
}


@pytest.mark.parametrize(("make", "has"), CIRCULANTS.items())
def test_circulants(make, has):
    for n in SIZES:
        expected = circulant(n, [d for d in range(n) if has(d, n)])
        np.testing.assert_array_equal(adjacency(make(n)), expected)


def test_weights_of_exponential_two():
    for n in SIZES:
        weights = {w for *_, w in ExponentialTwoGraph(n).edges.data("weight")}
        assert weights == {1 / (1 + math.ceil(math.log2(n)))}


def test_quoted_rows():
    row = adjacency(ExponentialTwoGraph(8))[:, 0]
    assert row.tolist() == [0.25, 0, 0, 0, 0.25, 0, 0.25, 0.25]
    assert list(ExponentialTwoGraph(8).predecessors(0)) == [0, 4, 6, 7]
    assert list(ExponentialTwoGraph(8).successors(0)) == [0, 1, 2, 4]
    assert sorted(RingGraph(8).predecessors(0)) == [0, 1, 7]


@pytest.mark.parametrize("center", [0, 3])
def test_star(center):
    for n in range(center + 1, 65):
        expected = np.diag(np.full(n, 1 - 1 / n))
        expected[center] = expected[:, center] = 1 / n
        np.testing.assert_allclose(adjacency(StarGraph(n, center)), expected, rtol=0, atol=2e-16)
    np.testing.assert_array_equal(adjacency(StarGraph(9)), adjacency(StarGraph(9, center_rank=0)))


def mesh_by_definition(rows, columns):
    n = rows * columns
    place = [divmod(i, columns) for i in range(n)]
    near = np.array([[abs(a - c) + abs(b - d) <= 1 for c, d in place] for a, b in place])
    sizes = near.sum(axis=1)  # neighbours, itself included
    w = np.where(near, 1 / np.maximum.outer(sizes, sizes), 0)
    np.fill_diagonal(w, 0)
    np.fill_diagonal(w, 1 - w.sum(axis=1))
    return w


def test_mesh():
    for n in SIZES:
        rows = max(r for r in range(1, math.isqrt(n) + 1) if n % r == 0)
        expected = mesh_by_definition(rows, n // rows)
        np.testing.assert_allclose(adjacency(MeshGrid2DGraph(n)), expected, rtol=0, atol=1e-15)
    tall = mesh_by_definition(6, 2)
    np.testing.assert_allclose(adjacency(MeshGrid2DGraph(12, (6, 2))), tall, rtol=0, atol=1e-15)


RHO = {
    ExponentialTwoGraph: [0.5, 0.6, 0.6667, 0.7143],
    ExponentialGraph: [0.5, 0.6, 0.6667, 0.7143],
    lambda n: ExponentialGraph(n, base=3): [0.577, 0.681, 0.660, 0.689],
    lambda n: ExponentialGraph(n, base=4): [0.745, 0.790, 0.809, 0.818],
    SymmetricExponentialGraph: [0.5, 0.6, 0.6667, 0.7143],
    MeshGrid2DGraph: [0.854, 0.869, 0.966, 0.968],
    StarGraph: [0.875, 0.938, 0.969, 0.984],
    RingGraph: [0.805, 0.949, 0.987, 0.997],
    lambda n: RingGraph(n, 1): [0.924, 0.981, 0.995, 0.999],
    lambda n: RingGraph(n, 2): [0.924, 0.981, 0.995, 0.999],
    FullyConnectedGraph: [0, 0, 0, 0],
}


@pytest.mark.parametrize(("make", "rho"), RHO.items())
def test_consensus_rates(make, rho):
    assert [consensus_rate(make(n)) for n in (8, 16, 32, 64)] == pytest.approx(rho, abs=6e-4)


@pytest.mark.parametrize("style", [3, -1, "left", None])
def test_other_ring_styles(style):
    with pytest.raises(ValueError, match=f"connect_style must be 0 .*2 .right., got {style!r}"):
        RingGraph(4, style)


def test_recv_and_send_weights():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(
        [(0, 0, 0.5), (1, 0, 0.25), (2, 0, 0.25), (1, 1, 0.75), (0, 1, 0.25), (2, 2, 1.0)]
    )
    assert GetRecvWeights(graph, 0) == (0.5, {1: 0.25, 2: 0.25})
    assert GetSendWeights(graph, 0) == (0.5, {1: 0.25})
    assert GetRecvWeights(graph, 2) == (1.0, {})
    assert GetSendWeights(graph, 2) == (1.0, {0: 0.25})
    graph.remove_edge(1, 1)
    assert GetRecvWeights(graph, 1) == (0.0, {0: 0.25})
    assert GetSendWeights(graph, 1) == (0.0, {0: 0.25})
    with pytest.raises(ValueError, match="rank 3 is not in the topology"):
        GetRecvWeights(graph, 3)
    with pytest.raises(ValueError, match="rank 3 is not in the topology"):
        GetSendWeights(graph, 3)


@pytest.mark.parametrize(
    "graph",
    [
        ExponentialTwoGraph(6),
        StarGraph(5, 2),
        MeshGrid2DGraph(6),
        nx.DiGraph([(0, 1), (2, 1), (1, 2)]),
    ],
)
def test_send_weights_are_the_columns_of_the_mixing_matrix(graph):
    w = mixing_matrix(graph)
    for rank in graph:
        self_weight, sends = GetSendWeights(graph, rank)
        assert self_weight == w[rank, rank]
        assert sends == {dst: w[dst, rank] for dst in graph if dst != rank and w[dst, rank] != 0}
        assert GetRecvWeights(graph, rank) == recv_weights(graph, rank)


def test_equivalent_topologies_have_the_same_edges_and_weights():
    assert IsTopologyEquivalent(RingGraph(2), FullyConnectedGraph(2))
    assert IsTopologyEquivalent(ExponentialGraph(9), ExponentialTwoGraph(9))
    shuffled = nx.DiGraph()
    shuffled.add_nodes_from([2, 1, 0])
    shuffled.add_edges_from(FullyConnectedGraph(3).edges(data=True))
    assert IsTopologyEquivalent(shuffled, RingGraph(3))
    assert not IsTopologyEquivalent(RingGraph(4), RingGraph(5))
    assert not IsTopologyEquivalent(RingGraph(4, 1), RingGraph(4, 2))  # isomorphic, not equal
    assert not IsTopologyEquivalent(nx.DiGraph([(0, 1)]), nx.DiGraph([(0, 1), (2, 2)]))
    heavier = RingGraph(4)
    heavier[0][1]["weight"] += 1e-16
    assert not IsTopologyEquivalent(heavier, RingGraph(4))
    assert not IsTopologyEquivalent(None, RingGraph(4))
    assert not IsTopologyEquivalent(RingGraph(4), None)
    assert not IsTopologyEquivalent(None, None)


def test_edges_without_weight_weigh_1():
    assert IsTopologyEquivalent(nx.DiGraph([(0, 1)]), nx.DiGraph([(0, 1, {"weight": 1})]))
    assert not IsTopologyEquivalent(nx.DiGraph([(0, 1)]), nx.DiGraph([(0, 1, {"weight": 0.5})]))


def test_regular_graphs():
    for graph in (RingGraph(5), RingGraph(5, 1), ExponentialGraph(12), FullyConnectedGraph(4)):
        assert IsRegularGraph(graph)
    assert IsRegularGraph(StarGraph(2))
    assert not IsRegularGraph(StarGraph(3))
    assert not IsRegularGraph(MeshGrid2DGraph(6))
    assert IsRegularGraph(MeshGrid2DGraph(4))


def test_powers_are_exact():
    for base in (2, 3, 5, 7, 10):
        powers = {base**k for k in range(40)}
        assert all(isPowerOf(x, base) for x in powers)
        assert not any(isPowerOf(x + 1, base) for x in powers if x + 1 not in powers)
        assert [x for x in range(1, 300) if isPowerOf(x, base)] == sorted(
            x for x in powers if x < 300
        )
    assert isPowerOf(243, 3)  # by a float logarithm it is not
    assert isPowerOf(1, 9)


@pytest.mark.parametrize(
    ("x", "base", "error", "message"),
    [
        (0, 2, ValueError, "x must be at least 1, got 0"),
        (8, 1, ValueError, "base must be at least 2, got 1"),
        (8.0, 2, TypeError, r"x must be an int, not 8\.0"),
        (8, 2.0, TypeError, r"base must be an int, not 2\.0"),
    ],
)
def test_numbers_that_have_no_powers(x, base, error, message):
    with pytest.raises(error, match=message):
        isPowerOf(x, base)


def test_they_are_exported_and_not_registered():
    bluefog = {name for name in topology.__all__ if name.endswith("Graph") or name[:3] == "Get"}
    assert len(bluefog) == 14
    assert not bluefog & set(names())
