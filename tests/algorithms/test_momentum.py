"""The algorithms that keep a momentum: their equations, learning rates, and what they refuse."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, iterate, make, on_ranks, problem_for, simulated, start_for, step
from ranks import run_ranks
from support import raises

from bluefog_pg import algorithms


def on(name, topology):
    """The topology, or for DecentLaM one that is static and symmetric."""
    return "symmetric_exponential" if name == "decentlam" else topology


MOMENTUM = ("dmsgd", "dmsgd_mixed", "decentlam", "qg_dsgdm", "momentum_tracking")
WARMUP_AND_DROP = (*np.linspace(0.1, 1, 8), *[1.0] * 4, 0.2)
HALF = (("momentum", 0.5),)
ROWS = [
    *(Row(name, on(name, "exponential"), options=HALF) for name in MOMENTUM),
    *(
        Row(
            name,
            on(name, "one_peer_exponential"),
            lr_second=0.25,
            lr_factors=WARMUP_AND_DROP,
            steps=20,
        )
        for name in MOMENTUM
    ),
    *(Row(name, "fully_connected", steps=10) for name in MOMENTUM),
]
FROM_ZERO = [
    Row(name, "ring", lr_factors=(0.0, 1.0), steps=11) for name in ("decentlam", "qg_dsgdm")
]
ROWS_OF_6 = [Row(name, on(name, "one_peer_exponential"), steps=10) for name in MOMENTUM]


@pytest.fixture(scope="module")
def iterates():
    return {4: on_ranks([*ROWS, *FROM_ZERO], nproc=4), 6: on_ranks(ROWS_OF_6, nproc=6)}


def tracking_with_one_message(x, gradient, rounds, momentum=0.9):
    """Momentum tracking where y = u' - c is averaged together with the next x."""
    g = gradient(x)
    y, u_old = 0 * g, (g - g.mean(axis=0)) / (1 - momentum)
    for w, lr in rounds:
        u = momentum * u_old + gradient(x)
        y = w @ y + u - u_old
        u_old, x = u, w @ x - lr * y
        yield x


@pytest.mark.parametrize(
    ("row", "nproc"), [*((row, 4) for row in ROWS), *((row, 6) for row in ROWS_OF_6)], ids=str
)
def test_follows_its_equation(iterates, row, nproc):
    changes = row.algorithm == "momentum_tracking" and row.topology == "one_peer_exponential"
    expected = simulated(row, nproc, tracking_with_one_message if changes else None)
    np.testing.assert_allclose(iterates[nproc][row], expected, rtol=0, atol=1e-12)


def centralized(steps):
    """SGD with momentum on the mean of all f_i, as torch does it."""
    problem = problem_for(4)
    x = torch.from_numpy(start_for(4)[0]).requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.05, momentum=0.9)
    for _ in range(steps):
        gradient = problem.gradient(np.tile(x.detach().numpy(), (4, 1))).mean(axis=0)
        x.grad = torch.from_numpy(gradient)
        optimizer.step()
        yield x.detach().numpy().copy()


@pytest.mark.parametrize("name", MOMENTUM)
def test_on_a_complete_graph_it_is_centralized(iterates, name):
    # QG-DSGDm weighs gradients by another rule after the first step, and the ranks' x of momentum
    # tracking differ by then.
    steps = 1 if name in ("qg_dsgdm", "momentum_tracking") else 10
    x = iterates[4][Row(name, "fully_connected", steps=10)][:steps]
    expected = np.stack(list(centralized(steps)))[:, None, :]
    np.testing.assert_allclose(x, np.broadcast_to(expected, x.shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("row", FROM_ZERO, ids=str)
def test_a_learning_rate_of_zero_is_no_step(iterates, row):
    x = iterates[4][row]
    np.testing.assert_allclose(x[0], start_for(4), rtol=0, atol=1e-15)
    expected = simulated(Row(row.algorithm, "ring", steps=10), 4)
    np.testing.assert_allclose(x[1:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MOMENTUM)
def test_momentum_is_checked(name):
    for momentum in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match=r"momentum must be at least 0 and below 1, got"):
            algorithms.get(name)(momentum=momentum)
    with pytest.raises(TypeError, match=r"momentum must be a number, not '0\.9'"):
        algorithms.get(name)(momentum="0.9")


def check_optimizers(rank, nproc):
    dist.init_process_group("bluefog")
    x = start_for(nproc)
    for name in MOMENTUM:
        for optimizer, options, has in (
            ("SGD", {"momentum": 0.8}, "SGD has momentum=0.8"),
            ("Adam", {"betas": (0.7, 0.999)}, "Adam has betas[0]=0.7"),
        ):
            row = Row(name, "ring", optimizer=optimizer, optimizer_options=tuple(options.items()))
            model, stepper, _ = make(row, rank, nproc, cap_mb=1)
            says = f"{name} keeps the momentum itself (momentum=0.9), and {has}"
            raises(ValueError, says, "set that to 0", call=lambda m=model, s=stepper: step(m, s))
            for group in stepper.param_groups:
                group.update({"momentum": 0.0} if "momentum" in group else {"betas": (0.0, 0.999)})
            step(model, stepper)
            model.settle()
            assert not np.array_equal(model.module.x().detach().numpy(), x[rank])


def test_an_optimizer_with_a_momentum_of_its_own_is_refused():
    run_ranks(check_optimizers, 2)


def test_an_optimizer_without_a_learning_rate_is_refused_where_it_is_read():
    class NoRate(torch.optim.Optimizer):
        def step(self):
            pass

    optimizer = NoRate([torch.zeros(1)], {})
    algorithms.get("dmsgd")().check_optimizer(optimizer)
    for name in ("decentlam", "qg_dsgdm"):
        with pytest.raises(ValueError, match="reads the learning rate, and NoRate has no 'lr'"):
            algorithms.get(name)().check_optimizer(optimizer)


SCHEDULED = [
    Row(name, "ring", lr_second=0.25, lr_factors=WARMUP_AND_DROP, steps=15)
    for name in ("decentlam", "qg_dsgdm")
]


def run_two_optimizers(rank, nproc):
    dist.init_process_group("bluefog")
    return [two_optimizers(row, rank, nproc) for row in SCHEDULED]


def two_optimizers(row, rank, nproc):
    """One per parameter, each with a scheduler that changes its rate before the other's step."""
    model, both, _ = make(row, rank, nproc, cap_mb=1)
    optimizers = [
        torch.optim.SGD(group["params"], group["initial_lr"]) for group in both.param_groups
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, row.factor) for o in optimizers]
    iterates = []
    for _ in range(row.steps):
        model().backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        iterates.append(iterate(model))
    return np.stack(iterates)


def test_learning_rates_are_those_of_the_step_with_several_optimizers():
    by_rank = run_ranks(run_two_optimizers, 3)
    for at, row in enumerate(SCHEDULED):
        x = np.stack([iterates[at] for iterates in by_rank], axis=1)
        np.testing.assert_allclose(x, simulated(row, 3), rtol=0, atol=1e-12)
