"""Averaging on virtual ranks: the published consensus figures, closed forms, refused input."""

import time

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.simulate import averages, consensus
from bluefog_pg.simulate.figures.consensus import TOPOLOGIES
from bluefog_pg.simulate.figures.figure import first_exact
from bluefog_pg.topology import (
    CecaSchedule,
    Schedule,
    SizeError,
    base_graph,
    ceca,
    consensus_rate,
    exponential,
    fully_connected,
    get,
    mixing_matrix,
    names,
    one_peer_exponential,
    ring,
)


def mean_error(label, n, steps):
    """Mean over 5 seeds of ||x_t - mean(x_0)||_2."""
    runs = [consensus(TOPOLOGIES[label](n, seed), steps, seed=seed) for seed in range(5)]
    return np.mean(runs, axis=0)


# All references are means over 5 draws of x_0, and those of EquiDyn over 5 draws of the graphs.
# A fixed graph leaves the draw of a few slow modes: 2. OU-EquiDyn: 3. OD-EquiDyn multiplies each
# mode by a random cosine per round: at step 40 such means lie within 1.6e-7 and 1.3e-5 in 98 of
# 100 cases (1000 seeds, n = 300), with a median of 1e-6.
@pytest.mark.parametrize(
    ("label", "n", "known", "factor"),
    [
        ("ring", 300, {130: 2.5}, 1.3),
        ("static exponential", 300, {40: 1.6e-4, 130: 3.1e-13}, 2),
        ("one-peer exponential", 300, {40: 5.4e-4, 130: 2.8e-12}, 2),
        ("OU-EquiDyn", 300, {40: 9.5e-5, 104: 8.5e-13}, 3),
        ("OD-EquiDyn", 300, {40: 6.4e-6, 78: 1.6e-14}, 30),
        ("ring", 130, {40: 2.2}, 1.3),
        ("static exponential", 130, {40: 4.1e-5}, 2),
        ("one-peer exponential", 130, {40: 3.2e-9}, 2),
        ("OU-EquiDyn", 130, {40: 6.4e-5}, 3),
        ("OD-EquiDyn", 130, {40: 4e-7}, 30),
    ],
)
def test_published_figures(label, n, known, factor):
    error = mean_error(label, n, steps=max(known))
    for step, value in known.items():
        assert value / factor < error[step] < value * factor, step


@pytest.mark.parametrize(
    ("label", "n", "step"),
    [
        ("Base-2", 300, 15),
        ("CECA-2P", 300, 9),
        ("Base-2", 130, 14),
        ("CECA-2P", 130, 8),
        ("one-peer exponential", 64, 6),
        ("Base-2", 17, 9),
        ("CECA-2P", 17, 5),
    ],
)
def test_published_exact_rounds(label, n, step):
    error = mean_error(label, n, steps=2 * step)
    assert first_exact(error) == step
    assert error[step - 1] > 0.1
    assert error[step:].max() < 1e-14


def exists(name, n):
    try:
        get(name)(n)
    except SizeError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "n"), [(name, n) for name in names() for n in (6, 8, 12) if exists(name, n)]
)
def test_rounds_are_those_of_the_mixing_matrices(name, n):
    topology = get(name)(n)
    x = np.random.default_rng(0).standard_normal((n, 2))
    both = np.concatenate([x, x])  # CECA's x and z
    for step, simulated in zip(range(8), averages(topology, x), strict=False):
        if isinstance(topology, CecaSchedule):
            both = topology.joint_matrix(step) @ both
            x = both[:n]
        else:
            x = mixing_matrix(topology(step) if isinstance(topology, Schedule) else topology) @ x
        np.testing.assert_allclose(simulated, x, rtol=0, atol=1e-14)


def test_mean_square_error_of_a_static_graph():
    # With x_0 ~ N(0, I), E ||x_t - mean||^2 = ||W^t - J||_F^2 for each of the columns.
    columns, steps = 4000, 12
    error = consensus(exponential(16), steps, dim=columns)
    w = mixing_matrix(exponential(16))
    for t in range(steps + 1):
        expected = np.linalg.norm(np.linalg.matrix_power(w, t) - 1 / 16) ** 2
        assert error[t] ** 2 / columns == pytest.approx(expected, rel=0.1), t


def test_error_is_that_to_the_mean_of_the_start():
    keeps = nx.DiGraph([(0, 1)])  # rank 0 keeps its value, rank 1 comes to it
    x = np.random.Generator(np.random.PCG64(3)).standard_normal(2)
    error = consensus(keeps, 60, seed=3)
    assert error[0] == pytest.approx(np.linalg.norm(x - x.mean()))
    assert error[60] == pytest.approx(np.sqrt(2) * abs(x[0] - x.mean()))


def test_first_step_of_the_complete_graph_is_exact():
    assert first_exact(consensus(fully_connected(12), 3)) == 1
    assert first_exact(consensus(ring(12), 3)) == float("inf")


def test_one_rank_agrees_with_itself():
    for topology in (ring(1), one_peer_exponential(1), ceca(1), base_graph(1, 1)):
        np.testing.assert_array_equal(consensus(topology, 3), np.zeros(4))


def test_five_thousand_ranks():
    start = time.process_time()
    error = consensus(exponential(5000), 100)
    assert time.process_time() - start < 15  # about 1 s on an idle core
    rate = consensus_rate(exponential(5000))
    assert error[0] == pytest.approx(np.sqrt(5000), rel=0.05)
    assert 0 < error[100] <= rate**100 * error[0]
    assert error[100] > rate**100 / 100  # the slowest mode, which a start has a part of


def test_results_depend_on_the_arguments_alone():
    np.testing.assert_array_equal(consensus(ring(9), 5, seed=2), consensus(ring(9), 5, seed=2))
    assert consensus(ring(9), 5, seed=2)[0] != consensus(ring(9), 5, seed=3)[0]


def test_progress_is_told_after_each_round():
    told = []
    assert len(consensus(ring(4), 7, on_step=lambda: told.append(1))) == 8
    assert len(told) == 7
    assert len(consensus(ring(4), 0)) == 1


@pytest.mark.parametrize(
    ("topology", "steps", "error", "message"),
    [
        ("ring", 1, TypeError, "must be an nx.DiGraph or a Schedule, got 'ring'"),
        (nx.cycle_graph(4), 1, TypeError, r"got Graph; .*to_directed\(\)"),
        (nx.relabel_nodes(ring(4), {0: 4}), 1, ValueError, "missing: 0; not a rank: 4"),
        (ring(4), -1, ValueError, "steps must be at least 0, got -1"),
        (ring(4), 2.5, TypeError, r"steps must be an int, not 2\.5"),
    ],
)
def test_refused_arguments(topology, steps, error, message):
    with pytest.raises(error, match=message):
        consensus(topology, steps)
