"""De Bruijn graphs: edges, exact average after log_p n steps, sizes that they don't exist for."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    SizeError,
    consensus_rate,
    de_bruijn,
    fingerprint,
    fully_connected,
    is_doubly_stochastic,
    mixing_matrix,
)

SIZES = [(p, tau) for p in range(2, 8) for tau in range(7) if p**tau <= 512]


@pytest.mark.parametrize(("p", "tau"), SIZES)
def test_exact_after_tau_steps_and_not_before(p, tau):
    n = p**tau
    graph = de_bruijn(n, p)
    w = mixing_matrix(graph)
    power = np.linalg.matrix_power(w, tau)
    assert abs(power - 1 / n).max() <= 1e-14
    if tau > 0:
        before = np.linalg.matrix_power(w, tau - 1)
        assert np.linalg.norm(before - 1 / n, ord=2) == pytest.approx(1, abs=1e-12)
    assert is_doubly_stochastic(graph, atol=1e-14)


@pytest.mark.parametrize(("p", "tau"), SIZES)
def test_digits_move_up_and_a_new_one_comes_in(p, tau):
    n = p**tau
    expected = {(j, (p * j + r) % n): 1 / min(p, n) for j in range(n) for r in range(p)}
    graph = de_bruijn(n, p)
    assert nx.get_edge_attributes(graph, "weight") == expected
    assert {d for _, d in graph.in_degree} == {d for _, d in graph.out_degree} == {min(p, n)}


def test_by_hand():
    assert {j: sorted(de_bruijn(8)[j]) for j in range(8)} == {
        0: [0, 1], 1: [2, 3], 2: [4, 5], 3: [6, 7], 4: [0, 1], 5: [2, 3], 6: [4, 5], 7: [6, 7],
    }  # fmt: skip
    assert fingerprint(de_bruijn(5, p=5)) == fingerprint(fully_connected(5))


def test_few_ranks_give_their_own_value_a_weight():
    assert np.count_nonzero(np.diag(mixing_matrix(de_bruijn(16)))) == 2  # 0 -> 0 and 15 -> 15
    assert np.count_nonzero(np.diag(mixing_matrix(de_bruijn(81, p=3)))) == 3
    # One step alone need not shrink a disagreement: all comes from the product.
    assert consensus_rate(de_bruijn(16)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "p", "message"),
    [
        (6, 2, r"p=2 exists for n = 1, 2, 4, \.\.\., powers of p, not for n=6$"),
        (8, 3, r"p=3 exists for n = 1, 3, 9, \.\.\., powers of p, not for n=8$"),
        (2, 4, "p=4 .* not for n=2$"),
        (244, 3, "not for n=244"),
    ],
)
def test_other_sizes(n, p, message):
    with pytest.raises(SizeError, match=message):
        de_bruijn(n, p)


def test_powers_that_a_float_logarithm_misses():
    assert len(de_bruijn(243, p=3)) == 243
    assert len(de_bruijn(125, p=5)) == 125


def test_refused_p():
    for p in (1, 0, -2):
        with pytest.raises(ValueError, match=f"p must be at least 2, got {p}"):
            de_bruijn(4, p)
    with pytest.raises(TypeError, match=r"p must be an int, not 2\.0"):
        de_bruijn(4, 2.0)
