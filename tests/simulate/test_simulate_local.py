"""Methods with local steps: beside torch's optimizers as outer ones, and what they equal."""

from itertools import islice

import numpy as np
import pytest
import torch

from bluefog_pg.simulate import LeastSquares, iterates, least_squares
from bluefog_pg.topology import fully_connected, mixing_matrix, random_matching, ring
from bluefog_pg.topology.static.cliques import cliques

N, LR = 4, 0.05
PROBLEM = least_squares(N)
START = np.tile(np.random.default_rng(5).standard_normal(PROBLEM.dim), (N, 1))


def path(method, steps, gradient=PROBLEM.gradient, topology=None, start=START, lr=LR, **options):
    run = iterates(method, gradient, topology or ring(N), start, lr, **options)
    return np.stack(list(islice(run, steps)))


def same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def local(x, steps, lr=LR):
    """Returns the iterates of gradient descent on each rank for itself."""
    rows = []
    for _ in range(steps):
        x = x - lr * PROBLEM.gradient(x)
        rows.append(x)
    return rows


def with_outer_optimizer(optimizer_of, steps, every, lr_of=lambda number: LR):
    """Rounds of local steps, whose mean change is the gradient of a torch optimizer."""
    x0 = torch.from_numpy(START[0].copy()).requires_grad_()
    optimizer, rows = optimizer_of([x0]), []
    for number in range(steps // every):
        *inner, last = local(np.tile(x0.detach().numpy(), (N, 1)), every, lr_of(number))
        x0.grad = x0.detach() - torch.from_numpy(last.mean(axis=0))
        optimizer.step()
        rows += [*inner, np.tile(x0.detach().numpy(), (N, 1))]
    return np.stack(rows)


def test_diloco_is_nesterovs_momentum_outside():
    expected = with_outer_optimizer(
        lambda x: torch.optim.SGD(x, lr=0.7, momentum=0.9, nesterov=True), 24, every=4
    )
    same(path("diloco", 24, every=4), expected)


def test_slowmo_is_heavy_ball_momentum_outside():
    heavy_ball = lambda x: torch.optim.SGD(x, lr=0.9, momentum=0.6)  # noqa: E731
    options = {"every": 3, "momentum": 0.6, "slow_lr": 0.9}
    same(path("slowmo", 24, **options), with_outer_optimizer(heavy_ball, 24, every=3))


def test_slowmo_remembers_in_units_of_the_learning_rate():
    # The change of the first round counts half in the second, times the ratio of the rates.
    first, second = path("slowmo", 2, lr=[0.08, 0.02].__getitem__, every=1, momentum=0.5)
    mean = PROBLEM.gradient(first).mean(axis=0)
    same(second, first - 0.02 * mean - 0.5 * (START - first) * 0.02 / 0.08)


def test_noloco_of_a_complete_graph_is_heavy_ball_momentum_outside():
    heavy_ball = lambda x: torch.optim.SGD(x, lr=0.7, momentum=0.5)  # noqa: E731
    ours = path("noloco", 24, topology=fully_connected(N), every=3)
    same(ours, with_outer_optimizer(heavy_ball, 24, every=3))


def test_noloco_by_hand():
    topology = random_matching(N, seed=1)
    rows = path("noloco", 4, topology=topology, every=2, outer_lr=0.4, momentum=0.3)
    x0, m = START, 0.0
    for number in range(2):
        inner, last = local(x0, 2)
        m = 0.3 * m + 0.4 * (mixing_matrix(topology(number)) @ last - x0)
        x0 = x0 + m
        same(rows[2 * number : 2 * number + 2], [inner, x0])


def test_gasloc_moves_as_diloco_where_all_ranks_agree():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((60, 10)), random.standard_normal(60)
    alike = LeastSquares(np.tile(a, (N, 1, 1)), np.tile(b, (N, 1)), 1 / 60).gradient
    options = {"gradient": alike, "every": 3, "momentum": 0.8, "outer_lr": 0.6}
    same(path("gasloc", 24, **options), path("diloco", 24, **options))


def test_gasloc_by_hand():
    w = mixing_matrix(ring(N))
    rows = path("gasloc", 3, every=1, outer_lr=0.5, momentum=0.25)
    x, v = START, START
    for row in rows:
        v_old, v = v, x - 0.5 * LR * PROBLEM.gradient(x)
        x = w @ v + 0.25 * (v - v_old)
        same(row, x)


def test_hierarchical_sgd_multiplies_by_the_groups_of_the_longest_period():
    x = START
    for step, row in enumerate(path("hierarchical_sgd", 8, periods={2: 2, 6: 4}), start=1):
        x = x - LR * PROBLEM.gradient(x)
        if step % 6 == 0:
            x = mixing_matrix(fully_connected(N)) @ x
        elif step % 2 == 0:
            x = mixing_matrix(cliques(N, 2)) @ x
        same(row, x)


def test_special_cases():
    """H = 1 is the centralized step; outer steps without momentum are local SGD."""
    central = path("gradient_allreduce", 20)
    same(path("atc", 20, topology=fully_connected(N)), central)
    same(path("local_sgd", 20, every=1), central)
    same(path("post_local_sgd", 20, warmup=20), central)
    same(path("hierarchical_sgd", 20, periods={1: N}), central)
    expected = path("local_sgd", 20, every=4)
    same(path("post_local_sgd", 20, warmup=0, every=4), expected)
    same(path("post_local_sgd", 24, warmup=4, every=4)[:4], central[:4])
    options = {"every": 4, "momentum": 0.0}
    same(path("slowmo", 20, **options), expected)
    same(path("diloco", 20, outer_lr=1.0, **options), expected)
    complete = fully_connected(N)
    same(path("gasloc", 20, topology=complete, outer_lr=1.0, **options), expected)
    same(path("noloco", 20, topology=complete, outer_lr=1.0, **options), expected)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("diloco", {"every": 5}),
        ("slowmo", {"every": 5}),
        ("noloco", {"every": 5, "topology": random_matching(N)}),
        ("gasloc", {"every": 5, "momentum": 0.3}),
    ],
)
def test_outer_steps_end_closer_than_their_first_round(method, options):
    """Biased by local steps on different data, but stable with the defaults."""
    errors = [PROBLEM.error(x) for x in path(method, 1000, lr=0.01, **options)[4::5]]
    assert errors[-1] < 0.2 * errors[0]
