"""Methods with local steps: ranks step alone for a round, and only then average.

W is that of the round, not of the step, and so is the learning rate; an iterate is yielded after
each step. mean(x) is the exact average over all ranks.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping

import numpy as np

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def gradient_allreduce(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """The centralized step, as of DistributedDataParallel.

    x' = x - lr mean(g(x))
    """
    for _, lr in rounds:
        x = x - lr * _mean(gradient(x))
        yield x


@register
def local_sgd(x: Array, gradient: Gradient, rounds: Rounds, every: int = 8) -> Iterator[Array]:
    """Local SGD (arXiv 1805.09767).

    x' = x - lr g(x);  after `every` steps x' <- mean(x')
    """
    for _, lr in rounds:
        x = _mean((yield from _local_steps(x, gradient, lr, every)))
        yield x


@register
def post_local_sgd(
    x: Array, gradient: Gradient, rounds: Rounds, warmup: int = 100, every: int = 8
) -> Iterator[Array]:
    """Post-local SGD (arXiv 1808.07217): `warmup` centralized steps, then local SGD."""
    rounds = iter(rounds)
    for _, (_, lr) in zip(range(warmup), rounds, strict=False):
        x = x - lr * _mean(gradient(x))
        yield x
    yield from local_sgd(x, gradient, rounds, every)


@register
def hierarchical_sgd(
    x: Array,
    gradient: Gradient,
    rounds: Rounds,
    periods: Mapping[int, int] | Iterable[tuple[int, int]],
) -> Iterator[Array]:
    """Hierarchical SGD (arXiv 2010.12998); periods are {steps: ranks per group}.

    x' = x - lr g(x);  then x' <- the mean of x' over the rank's group, neighboring ranks of the
    largest period that divides the number of steps so far
    """
    periods = dict(periods)
    for step, (_, lr) in enumerate(rounds, start=1):
        x = x - lr * gradient(x)
        due = [steps for steps in periods if step % steps == 0]
        if due:
            groups = x.reshape(-1, periods[max(due)], x.shape[1])
            x = np.broadcast_to(groups.mean(axis=1, keepdims=True), groups.shape).reshape(x.shape)
        yield x


@register
def slowmo(
    x: Array,
    gradient: Gradient,
    rounds: Rounds,
    every: int = 48,
    momentum: float = 0.5,
    slow_lr: float = 1.0,
) -> Iterator[Array]:
    """SlowMo over local SGD (arXiv 1910.00643).

    x = x0 after `every` local steps;  u' = momentum u + (x0 - mean(x)) / lr
    x0' = x0 - slow_lr lr u';  u0 = 0
    """
    u = np.zeros_like(x)
    for _, lr in rounds:
        x0, x = x, (yield from _local_steps(x, gradient, lr, every))
        u = momentum * u + (x0 - _mean(x)) / lr
        x = x0 - slow_lr * lr * u
        yield x


@register
def diloco(
    x: Array,
    gradient: Gradient,
    rounds: Rounds,
    every: int = 100,
    momentum: float = 0.9,
    outer_lr: float = 0.7,
) -> Iterator[Array]:
    """DiLoCo over gradient descent (arXiv 2311.08105).

    x = x0 after `every` local steps;  d = x0 - mean(x);  m' = momentum m + d
    x0' = x0 - outer_lr (d + momentum m');  m0 = 0
    """
    m = np.zeros_like(x)
    for _, lr in rounds:
        x0, x = x, (yield from _local_steps(x, gradient, lr, every))
        d = x0 - _mean(x)
        m = momentum * m + d
        x = x0 - outer_lr * (d + momentum * m)
        yield x


@register
def noloco(
    x: Array,
    gradient: Gradient,
    rounds: Rounds,
    every: int = 50,
    momentum: float = 0.5,
    outer_lr: float = 0.7,
) -> Iterator[Array]:
    """NoLoCo over gradient descent (arXiv 2506.10911); W is a round of `random_matching`.

    x = x0 after `every` local steps
    m' = momentum m + outer_lr (W (x - x0) - (x0 - W x0));  x0' = x0 + m';  m0 = 0
    """
    m = np.zeros_like(x)
    for w, lr in rounds:
        x0, x = x, (yield from _local_steps(x, gradient, lr, every))
        m = momentum * m + outer_lr * (w @ (x - x0) - (x0 - w @ x0))
        x = x0 + m
        yield x


@register
def gasloc(
    x: Array,
    gradient: Gradient,
    rounds: Rounds,
    every: int = 100,
    momentum: float = 0.9,
    outer_lr: float = 0.7,
) -> Iterator[Array]:
    """GASLoC over gradient descent (arXiv 2606.11081).

    x = x0 after `every` local steps;  v' = x0 + outer_lr (x - x0)
    x0' = W v' + momentum (v' - v);  v0 = x0
    """
    v = x
    for w, lr in rounds:
        x0, x = x, (yield from _local_steps(x, gradient, lr, every))
        v_old, v = v, x0 + outer_lr * (x - x0)
        x = w @ v + momentum * (v - v_old)
        yield x


def _local_steps(
    x: Array, gradient: Gradient, lr: float, steps: int
) -> Generator[Array, None, Array]:
    """x' = x - lr g(x); yields all iterates but the last one, which it returns."""
    for left in range(steps, 0, -1):
        x = x - lr * gradient(x)
        if left > 1:
            yield x
    return x


def _mean(x: Array) -> Array:
    return np.broadcast_to(x.mean(axis=0), x.shape)
