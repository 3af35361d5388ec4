"""CECA: exact in ceil(log2 n) rounds, what x and z hold after each, and how it is told."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
from topology_rounds import assert_doubly_stochastic, degrees, destination, edges, matrix

from bluefog_pg.topology import CecaSchedule, Schedule, SizeError, ceca, get, rounds

ALL = [(n, 2) for n in range(1, 301)] + [(n, 1) for n in (1, *range(2, 301, 2))]
SMALL = [(n, variant) for n, variant in ALL if 1 < n <= 64]


def sizes(variant, cases=SMALL):
    return [n for n, case_variant in cases if case_variant == variant]


def run(schedule, x, z, steps):
    for step in steps:
        x, z = schedule.update(step).apply(x, z)
    return x, z


def products(schedule):
    """Gives (X, Z) after each round of a period: x = X x0 and z = Z x0, both started from x0."""
    n = schedule.size
    state = np.concatenate([np.eye(n), np.eye(n)])
    for step in range(schedule.period):
        state = schedule.joint_matrix(step) @ state
        yield state[:n], state[n:]


def prefixes(n):
    """m after each round: the numbers that the leading bits of n - 1 make."""
    bits = bin(n - 1)[2:]
    return [int(bits[: t + 1], 2) for t in range(len(bits))]


@pytest.mark.parametrize("variant", [1, 2])
def test_exact_in_the_fewest_possible_rounds(variant):
    for n in sizes(variant, ALL):
        schedule = ceca(n, variant)
        assert schedule.period == (math.ceil(math.log2(n)) if n > 1 else 1)
        x = np.random.default_rng(n).uniform(-1, 1, n)
        mean = x.mean()
        x, _ = run(schedule, x, x, range(schedule.period))
        assert abs(x - mean).max() <= 1e-14, n


def test_z_is_no_consensus_value():
    # It ends as the mean of the other n - 1 ranks.
    for n, variant in SMALL:
        *_, (_, z) = products(ceca(n, variant))
        expected = (1 - np.eye(n)) / (n - 1)
        np.testing.assert_allclose(z, expected, rtol=0, atol=1e-15, err_msg=f"{n}, {variant}")


def test_two_port_windows_after_each_round():
    for n in sizes(2):
        for (x, z), m in zip(products(ceca(n, 2)), prefixes(n), strict=True):
            back = (np.arange(n)[:, None] - np.arange(n)) % n  # i - j
            np.testing.assert_allclose(x, (back <= m) / (m + 1), rtol=0, atol=1e-15)
            if m:
                window = (back <= m) & (back > 0)
                np.testing.assert_allclose(z, window / m, rtol=0, atol=1e-15)


def test_one_port_sets_after_each_round():
    # x_i is the mean of m + 1 different ranks, z_i that of the same without i.
    for n in sizes(1):
        for (x, z), m in zip(products(ceca(n, 1)), prefixes(n), strict=True):
            held = x > 1e-9
            assert (held.sum(axis=1) == m + 1).all()
            assert held.diagonal().all()
            np.testing.assert_allclose(x, held / (m + 1), rtol=0, atol=1e-15)
            without = held & ~np.eye(n, dtype=bool)
            np.testing.assert_allclose(z, without / m, rtol=0, atol=1e-15)


def test_the_equations_of_the_paper():
    n = 23  # 22 = 10110b
    x = z = np.random.default_rng(0).standard_normal(n)
    m, schedule = 0, ceca(n)
    for step, bit in enumerate("10110"):
        a, b = m / (2 * m + 1), (m + 1) / (2 * m + 1)
        if bit == "1":
            r = np.roll(x, m + 1)
            expected = x / 2 + r / 2, a * z + b * r
        else:
            r = np.roll(z, m)
            expected = b * x + a * r, z / 2 + r / 2
        m = 2 * m + int(bit)
        stacked = schedule.joint_matrix(step) @ np.concatenate([x, z])
        x, z = schedule.update(step).apply(x, z)
        np.testing.assert_allclose((x, z), expected, rtol=0, atol=1e-15)
        np.testing.assert_allclose(stacked, np.concatenate(expected), rtol=0, atol=1e-14)
    assert m == 22


def test_a_period_forgets_the_old_z():
    for n, variant in SMALL:
        schedule = ceca(n, variant)
        assert [schedule.update(t).resets for t in range(schedule.period)] == [
            t == 0 for t in range(schedule.period)
        ]
        assert schedule.update(schedule.period).resets
        assert not schedule.joint_matrix(0)[:, n:].any()  # nothing comes from the old z


@pytest.mark.parametrize(("n", "variant"), [(1, 2), (2, 2), (7, 2), (12, 1), (33, 2)])
def test_a_second_period_averages_again(n, variant):
    schedule = ceca(n, variant)
    x, z = run(schedule, *np.random.default_rng(0).uniform(-1, 1, (2, n)), range(schedule.period))
    x = x + np.arange(n)  # a gradient step between
    mean = x.mean()
    x, _ = run(schedule, x, z, range(schedule.period, 2 * schedule.period))
    np.testing.assert_allclose(x, mean, rtol=0, atol=1e-13)


def test_graphs_carry_the_row_of_x():
    for n, variant in SMALL:
        schedule = ceca(n, variant)
        for step, graph in enumerate(rounds(schedule)):
            update, joint = schedule.update(step), schedule.joint_matrix(step)[:n]
            assert_doubly_stochastic(graph, (n, variant))
            assert max(degrees(graph)) == 1
            expected = joint[:, :n] + joint[:, n:]
            np.testing.assert_array_equal(matrix(graph), expected)
            assert bool(joint[:, n:].any()) == (update.sends == "z")
            for rank, source in enumerate(update.sources):
                assert destination(graph, source) == rank
                assert graph[rank][rank]["weight"] == update.x[0]
                assert graph[source][rank]["weight"] == update.x[1]


def test_partners():
    two, one = ceca(6), ceca(6, variant=1)  # 5 = 101b: m = 0, 1, 2
    sources = [two.update(step).sources for step in range(3)]
    assert sources == [(5, 0, 1, 2, 3, 4), (5, 0, 1, 2, 3, 4), (3, 4, 5, 0, 1, 2)]
    assert [two.update(step).sends for step in range(3)] == ["x", "z", "x"]
    mates = [one.update(step).sources for step in range(3)]
    assert mates == [(5, 2, 1, 4, 3, 0), (3, 4, 5, 0, 1, 2), (1, 0, 3, 2, 5, 4)]


def test_one_port_exchanges_are_mutual():
    for n in sizes(1):
        for step in range(ceca(n, 1).period):
            mates = ceca(n, 1).update(step).sources
            assert all(mates[mate] == i for i, mate in enumerate(mates))


def test_two_ranks():
    for variant in (1, 2):
        schedule = ceca(2, variant)
        assert schedule.period == 1
        x, z = schedule.update(0).apply(np.array([1.0, 3.0]), np.array([9.0, 9.0]))
        assert (x.tolist(), z.tolist()) == ([2.0, 2.0], [3.0, 1.0])


def test_one_rank():
    for variant in (1, 2):
        schedule = ceca(1, variant)
        assert edges(schedule(0)) == {(0, 0): 1.0}
        x, z = schedule.update(3).apply(np.array([5.0]), np.array([7.0]))
        assert (x.tolist(), z.tolist()) == ([5.0], [5.0])


def test_updates_act_on_rows_of_any_shape():
    x = np.random.default_rng(0).uniform(-1, 1, (6, 4, 2))
    schedule = ceca(6)
    mixed, _ = run(schedule, x, x, range(3))
    np.testing.assert_allclose(mixed, np.broadcast_to(x.mean(axis=0), x.shape), rtol=0, atol=1e-14)


def test_it_is_a_schedule():
    schedule = get("ceca")(12)
    assert isinstance(schedule, CecaSchedule)
    assert isinstance(schedule, Schedule)
    assert repr(schedule) == "Schedule(ceca2p, size=12, period=4)"
    assert repr(ceca(12, 1)) == "Schedule(ceca1p, size=12, period=4)"
    assert schedule.variant == 2
    assert schedule.update(5) == schedule.update(1) == ceca(12).update(np.int64(1))
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert twin.update(2) == schedule.update(2)
        assert edges(twin(2)) == edges(schedule(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.update(0).sends = "z"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ceca(5, variant=1), SizeError, "variant=1 .* needs an even n, got n=5"),
        (lambda: ceca(299, variant=1), SizeError, "even n, got n=299"),
        (lambda: ceca(4, variant=3), ValueError, "variant must be 1 or 2, got 3"),
        (lambda: ceca(4, variant="2P"), ValueError, "variant must be 1 or 2, got '2P'"),
        (lambda: ceca(0), ValueError, "at least 1 rank, got n=0"),
        (lambda: CecaSchedule(2.5), TypeError, r"must be an int, not 2\.5"),
        (lambda: ceca(4).update(-1), ValueError, "step must be at least 0, got -1"),
        (lambda: ceca(4).joint_matrix(0.0), TypeError, r"step must be an int, not 0\.0"),
    ],
)
def test_refused_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
