"""Runs a method on a problem over a topology."""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import networkx as nx
import numpy as np

from bluefog_pg.simulate import methods
from bluefog_pg.simulate.methods import Gradient, Method
from bluefog_pg.simulate.problems import Problem, noisy
from bluefog_pg.simulate.rounds import Array, mixing, size_of
from bluefog_pg.topology import CecaSchedule, Schedule
from bluefog_pg.topology.arguments import check_int

LearningRate = float | Callable[[int], float]
"""A number, or a function of the step, counted from 0."""


def optimize(
    method: str | Method,
    problem: Problem,
    topology: nx.DiGraph | Schedule,
    steps: int,
    lr: LearningRate,
    *,
    sigma: float = 0.0,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
    **options: Any,
) -> Array:
    """Returns the problem's error after 0, 1, ..., steps iterations from x = 0.

    Nothing stops a method on a topology that it does not converge on: the error then grows.

    Args:
        method: a registered method's name, or a function that follows `methods.registry`.
        problem: of as many ranks as the topology has.
        topology: a graph, a schedule, or for dsgd_ceca a `CecaSchedule`.
        steps: number of iterations.
        lr: the learning rate, or a function from the step to it.
        sigma: standard deviation of the normal noise on each entry of each gradient.
        seed: of that noise.
        on_step: called after each iteration, for a progress bar.
        options: passed on to the method, such as ``momentum=0.9``.

    Raises:
        ValueError: an unknown method, negative steps, problem and topology differ in size, or
            CECA and a method for one variable are put together.
    """
    steps = check_int("steps", steps, 0)
    gradient = noisy(problem.gradient, sigma, seed) if sigma else problem.gradient
    start = np.zeros((problem.n, problem.dim))
    errors = [problem.error(start)]
    for x in islice(iterates(method, gradient, topology, start, lr, **options), steps):
        errors.append(problem.error(x))
        on_step()
    return np.array(errors)


def iterates(
    method: str | Method,
    gradient: Gradient,
    topology: nx.DiGraph | Schedule,
    x: Array,
    lr: LearningRate,
    **options: Any,
) -> Iterator[Array]:
    """Gives the ranks' parameters after iterations 1, 2, ... from x, shape (n, d), without end.

    The arguments are those of `optimize`.
    """
    run = methods.get(method) if isinstance(method, str) else method
    _check_exchange(run, topology)
    if len(x) != size_of(topology):
        raise ValueError(f"x has {len(x)} rows, the topology has {size_of(topology)} ranks")
    exchange = topology.update if isinstance(topology, CecaSchedule) else mixing(topology)
    rate = lr if callable(lr) else lambda step: lr
    return run(x, gradient, ((exchange(step), rate(step)) for step in count()), **options)


def _check_exchange(run: Method, topology: nx.DiGraph | Schedule) -> None:
    """Only dsgd_ceca, and methods of the user's, know what to do with CECA's two variables."""
    is_ceca = isinstance(topology, CecaSchedule)
    if run is methods.dsgd_ceca and not is_ceca:
        raise ValueError(f"dsgd_ceca runs on a CecaSchedule, as ceca(n) is, not on {topology!r}")
    if is_ceca and run is not methods.dsgd_ceca and run.__name__ in methods.names():
        raise ValueError(f"{run.__name__} averages one variable; on {topology!r} use dsgd_ceca")
