"""Algorithms on heterogeneous least squares: the iterates of real ranks beside the simulator's.

ROWS = [Row("atc", "ring"), Row("push_sum", digraph, lr=0.02)]

@pytest.fixture(scope="module")
def iterates():
    return on_ranks(ROWS, nproc=4)  # {row: array (steps, nproc, dim)}, one start of ranks

@pytest.mark.parametrize("row", ROWS, ids=str)
def test_follows_its_equation(iterates, row):
    np.testing.assert_allclose(iterates[row], simulated(row, 4), rtol=0, atol=1e-12)
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms, simulate
from bluefog_pg.group import resolve

DIM = 10


@dataclass(frozen=True)
class Row:
    """An algorithm on a topology, by name or made by a function of this module or of a test's."""

    algorithm: str
    topology: str | Callable[[int], Any]
    method: str = ""
    """The simulator's name where that differs."""
    lr: float = 0.05
    steps: int = 25
    options: tuple[tuple[str, Any], ...] = ()
    """Of the algorithm and of the method alike."""
    optimizer: str = "SGD"
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    lr_second: float = 1.0
    """The second parameter's group has lr times this."""
    lr_factors: tuple[float, ...] = ()
    """lr is times the k-th of these in step k, the last one goes on; empty: always lr."""
    skips: tuple[tuple[int, int], ...] = ()
    """(rank, step) where the optimizer does not step, as when a GradScaler has met infinities."""

    def __str__(self) -> str:
        topology = getattr(self.topology, "__name__", self.topology)
        options = "".join(f"-{name}={value}" for name, value in self.options)
        rates = "-groups" * (self.lr_second != 1) + "-schedule" * bool(self.lr_factors)
        return f"{self.algorithm}-{topology}{options}{rates}{'-skips' * bool(self.skips)}"

    def factor(self, step):
        return self.lr_factors[min(step, len(self.lr_factors) - 1)] if self.lr_factors else 1.0


def problem_for(nproc):
    """Ranks disagree a lot: their own optima are far from each other's."""
    return simulate.least_squares(nproc, dim=DIM)


def start_for(nproc):
    """All ranks start from the same point, as DecentralizedDataParallel makes them."""
    return np.tile(np.random.default_rng(3).standard_normal(DIM), (nproc, 1))


def simulated(row, nproc, method=None):
    """Returns the simulator's iterates after steps 1, 2, ..., shape (steps, nproc, DIM).

    method: a function as in `bluefog_pg.simulate.methods`, in the place of the row's.
    """
    run = simulate.iterates(
        method or row.method or row.algorithm,
        _gradient(row, nproc),
        resolve(row.topology, nproc),
        start_for(nproc),
        lambda step: row.lr * row.factor(step) * np.repeat([1.0, row.lr_second], [6, 4]),
        **dict(row.options),
    )
    return np.stack(list(islice(run, row.steps)))


def _gradient(row, nproc):
    """That of the problem, 0 where a step is skipped; for methods that ask once per step."""
    problem, steps = problem_for(nproc), count()

    def gradient(x):
        g, now = problem.gradient(x), next(steps)
        g[[rank for rank, at in row.skips if at == now]] = 0
        return g

    return gradient


def on_ranks(rows, nproc, cap_mb=6e-5, timeout=240, only_last=False):
    """Returns {row: iterates}, shape (steps, nproc, DIM), of DecentralizedDataParallel.

    cap_mb: the default makes two blocks of the parameters, one of 6 numbers and one of 4.
    only_last: the shape is (1, nproc, DIM), and nothing waits for the exchange after each step.
    """
    by_rank = run_ranks(_run_rows, nproc, rows, cap_mb, only_last, timeout=timeout)
    return {
        row: np.stack([iterates[at] for iterates in by_rank], axis=1) for at, row in enumerate(rows)
    }


class Point(nn.Module):
    """x in two parameters; its forward pass is f_rank(x)."""

    def __init__(self, problem, rank, x):
        super().__init__()
        first, second = torch.from_numpy(x).split([6, 4])
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        self.hessian = torch.from_numpy(problem.hessians[rank])
        zero = np.zeros((problem.n, problem.dim))
        self.offset = -torch.from_numpy(problem.gradient(zero)[rank])

    def x(self):
        return torch.cat([self.first, self.second])

    def forward(self):
        x = self.x()
        return x @ self.hessian @ x / 2 - self.offset @ x


def make(row, rank, nproc, cap_mb):
    """Returns the wrapped model, its optimizer, and the scheduler of its learning rate or None."""
    model = bf.DecentralizedDataParallel(
        Point(problem_for(nproc), rank, start_for(nproc)[rank]),
        algorithm=algorithms.get(row.algorithm)(**dict(row.options)),
        topology=row.topology,
        bucket_cap_mb=cap_mb,
    )
    groups = [
        {"params": [model.module.first], "lr": row.lr},
        {"params": [model.module.second], "lr": row.lr * row.lr_second},
    ]
    optimizer = getattr(torch.optim, row.optimizer)(groups, **dict(row.optimizer_options))
    schedule = torch.optim.lr_scheduler.LambdaLR
    return model, optimizer, schedule(optimizer, row.factor) if row.lr_factors else None


def step(model, optimizer, skip=False):
    optimizer.zero_grad()
    model().backward()
    if not skip:
        optimizer.step()


def iterate(model):
    """Returns x after the step's exchange, which an algorithm may have left under way."""
    model.settle()
    return model.module.x().detach().numpy().copy()


def _run_rows(rank, nproc, rows, cap_mb, only_last):
    dist.init_process_group("bluefog")
    return [_run(row, rank, nproc, cap_mb, only_last) for row in rows]


def _run(row, rank, nproc, cap_mb, only_last):
    model, optimizer, scheduler = make(row, rank, nproc, cap_mb)
    iterates = []
    for at in range(row.steps):
        step(model, optimizer, skip=(rank, at) in row.skips)
        if not only_last:
            iterates.append(iterate(model))
        if scheduler:
            scheduler.step()
    return np.stack(iterates or [iterate(model)])
