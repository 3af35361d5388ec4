"""Norms of products of mixing matrices against dense algebra and closed forms; ARPACK's traps."""

import math
import subprocess
import sys
import time

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array

from bluefog_pg.topology import (
    base_graph,
    consensus_rate,
    de_bruijn,
    exponential,
    fully_connected,
    hypercube,
    mesh2d,
    one_peer_exponential,
    ring,
    rounds,
    sparse_mixing_matrix,
    star,
)
from bluefog_pg.topology.analysis.spectral import (
    DENSE_RANKS,
    distance_from_average,
    first_exact,
    mean_square_rate,
    smallest_eigenvalue,
)


def matrices(topology):
    return [sparse_mixing_matrix(graph) for graph in rounds(topology)]


def dense_norm(ws):
    product = np.eye(ws[0].shape[1])
    for w in ws:
        product = w.toarray() @ product
    return np.linalg.norm(product - 1 / len(product), ord=2)


def any_matrix(n, seed):
    """Positive weights that sum to nothing in particular."""
    rng = np.random.default_rng(seed)
    return csr_array(rng.random((n, n)) * (rng.random((n, n)) < 0.05))


SPARSE = DENSE_RANKS + 1
assert SPARSE % 2


@pytest.mark.parametrize(
    "ws",
    [
        matrices(one_peer_exponential(SPARSE)),
        matrices(ring(SPARSE, "right")),
        [*matrices(ring(SPARSE)), *matrices(exponential(SPARSE)), *matrices(star(SPARSE))],
        [any_matrix(SPARSE, 1)],
        [any_matrix(SPARSE, 2), any_matrix(SPARSE, 3)],
        [100 * any_matrix(SPARSE, 4)],
        [csr_array((SPARSE, SPARSE))],
        [eye_array(SPARSE, format="csr")],
    ],
    ids=["one-peer", "one-way", "mixed", "any", "product", "large", "zero", "identity"],
)
def test_more_ranks_than_a_dense_matrix_is_used_for(ws):
    assert distance_from_average(ws) == pytest.approx(dense_norm(ws), rel=1e-9)


def test_both_ways_agree_at_their_border():
    for n in (DENSE_RANKS, DENSE_RANKS + 1):
        w = matrices(ring(n))
        assert distance_from_average(w) == pytest.approx(1 / 3 + 2 / 3 * math.cos(2 * math.pi / n))


@pytest.mark.parametrize(
    ("graph", "rho"),
    [
        (exponential(2048), 1 - 2 / 12),
        (hypercube(1024), 1 - 2 / 11),  # every value many times over
        (star(1000), 1 - 1 / 1000),  # two values but for the mean's, one of them 998 times
        (fully_connected(200), 0),
        # Gaps of 1e-6, which ARPACK does not reach by products with vectors:
        (ring(4096), 1 / 3 + 2 / 3 * math.cos(2 * math.pi / 4096)),
        (ring(4096, "left"), math.cos(math.pi / 4096)),
        (mesh2d(2000, (1, 2000)), 1 - 2 / 3 * (1 - math.cos(math.pi / 2000))),
    ],
    ids=["exponential", "hypercube", "star", "complete", "ring", "one-way ring", "line"],
)
def test_closed_forms_of_large_graphs(graph, rho):
    assert consensus_rate(graph) == pytest.approx(rho, rel=1e-10, abs=1e-12)


def test_16384_ranks_take_under_a_second():
    w = sparse_mixing_matrix(exponential(16384))
    start = time.process_time()
    norm = distance_from_average([w])
    seconds = time.process_time() - start
    assert norm == pytest.approx(1 - 2 / (math.log2(16384) + 1), rel=1e-12)
    assert seconds < 3, "about 0.1 s on an idle core"


def test_two_parts_never_meet():
    apart = nx.disjoint_union(ring(100), exponential(100))
    assert consensus_rate(apart) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [16, 256])
def test_digits_of_tiny_norms(n):
    # Symmetric or circulant matrices: the norm of a power is the power of the norm.
    for graph in (exponential(n), hypercube(n)):
        (w,) = matrices(graph)
        rho = consensus_rate(graph)
        assert distance_from_average([w] * 200) == pytest.approx(rho**200, rel=1e-6)
        assert rho**200 < 1e-16


@pytest.mark.parametrize("n", [1, 2, 64, 1024])
def test_exact_products_leave_rounding(n):
    ws = matrices(one_peer_exponential(n))
    assert distance_from_average(ws) < 1e-14
    assert distance_from_average([*ws, *ws]) < 1e-14


def test_one_rank():
    assert distance_from_average([csr_array([[1.0]])]) == 0
    assert distance_from_average([csr_array([[0.25]])]) == 0.75


def test_rounds_until_exact():
    assert first_exact(matrices(fully_connected(7))) == 1
    assert first_exact(matrices(one_peer_exponential(32))) == 5
    assert first_exact(matrices(base_graph(300))) == 15
    assert first_exact(matrices(de_bruijn(32)), repeat=64) == 5
    assert first_exact(matrices(de_bruijn(81, 3)), repeat=64) == 4
    assert first_exact(matrices(de_bruijn(32))) is None  # in one round
    assert first_exact([csr_array([[1.0]])]) == 0


@pytest.mark.parametrize(
    "ws",
    [
        matrices(one_peer_exponential(33)),
        matrices(exponential(6)),  # rate 1/2: rounding after 50 rounds, without a jump
        [csr_array((4, 4))],  # all ranks agree, but on nothing that they had
        [csr_array([[1.0, 0], [1, 0]])],  # all ranks take rank 0's value
    ],
    ids=["one-peer", "fast", "zero", "broadcast"],
)
def test_what_is_not_exact(ws):
    assert first_exact(ws, repeat=100) is None


def test_mean_square_rate_of_single_rounds():
    # A circulant (I + P_s)/2 shrinks random values by sqrt((n-2) / (2(n-1))), whatever s is.
    for n in (3, 8, 17, 300):
        expected = math.sqrt((n - 2) / (2 * (n - 1)))
        assert mean_square_rate(matrices(one_peer_exponential(n))[:1]) == pytest.approx(expected)
    assert mean_square_rate(matrices(fully_connected(8))) == pytest.approx(0, abs=1e-7)
    assert mean_square_rate([csr_array([[1.0]])]) == 0


@pytest.mark.parametrize("n", [2, 3, 16, 17, 1000])
def test_smallest_eigenvalue(n):
    lowest = min(math.cos(2 * math.pi * k / n) for k in range(n))
    expected = 1 / 3 + 2 / 3 * lowest if n > 2 else 0
    assert smallest_eigenvalue(*matrices(ring(n))) == pytest.approx(expected, abs=1e-6)


def test_scipy_is_loaded_only_where_it_is_used():
    # Every rank of a training run imports topologies; scipy would take it a quarter of a second.
    code = (
        "import sys\n"
        "import bluefog_pg.topology as topology\n"
        "topology.fingerprint(topology.ring(4))\n"
        "sys.exit('scipy' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
