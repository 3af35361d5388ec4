"""How fast a topology averages."""

from collections.abc import Callable, Iterator
from itertools import count, islice

import networkx as nx
import numpy as np
from numpy.random import PCG64, Generator

from bluefog_pg.simulate.rounds import Array, mixing, size_of
from bluefog_pg.topology import CecaSchedule, Schedule
from bluefog_pg.topology.arguments import check_int


def consensus(
    topology: nx.DiGraph | Schedule,
    steps: int,
    dim: int = 1,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> Array:
    """Returns the consensus error after 0, 1, ..., steps rounds, shape (steps + 1,).

    The error is ||X_t - 1 m^T||_F, where X_t has one row per rank and m is the mean row of X_0; for
    dim = 1 that is the 2-norm over the ranks of x_t - mean(x_0). It is not divided by anything, so
    it starts at about sqrt(n dim). The entries of X_0 are standard normal.

    Args:
        topology: a graph or a schedule. Of a `CecaSchedule` the error of x counts, with z_0 = x_0.
        steps: number of rounds.
        dim: number of columns of X, which are averaged side by side.
        seed: of X_0.
        on_step: called after each round, for a progress bar.

    Raises:
        TypeError, ValueError: steps is not an int of at least 0, or the topology is not valid.
    """
    steps = check_int("steps", steps, 0)
    start = Generator(PCG64(seed)).standard_normal((size_of(topology), dim))
    mean = start.mean(axis=0)
    errors = [np.linalg.norm(start - mean)]
    for x in islice(averages(topology, start), steps):
        errors.append(np.linalg.norm(x - mean))
        on_step()
    return np.array(errors)


def averages(topology: nx.DiGraph | Schedule, x: Array) -> Iterator[Array]:
    """Gives the ranks' values after 1, 2, ... rounds of averaging x, shape (n, d), without end."""
    if isinstance(topology, CecaSchedule):
        z = x
        for step in count():
            x, z = topology.update(step).apply(x, z)
            yield x
    matrix = mixing(topology)
    for step in count():
        x = matrix(step) @ x
        yield x
