"""What the rounds of a topology are turned into, above all their mixing matrices."""

from collections.abc import Callable
from typing import Generic, TypeVar

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bluefog_pg.topology import Schedule
from bluefog_pg.topology.graph import check_type
from bluefog_pg.topology.mixing import sparse_mixing_matrix

Array = npt.NDArray[np.float64]
T = TypeVar("T")


class EachRound(Generic[T]):
    """``each(step)`` is what `make` makes of that step's graph, once for each round of a period.

    Args:
        topology: an nx.DiGraph on 0..n-1, the same in every step, or a `Schedule`.
        make: called with a valid graph.

    Raises:
        TypeError, ValueError: the topology is neither, or its weights are not valid; for the rounds
            of a schedule this is raised when they are first asked for.
    """

    def __init__(self, topology: nx.DiGraph | Schedule, make: Callable[[nx.DiGraph], T]) -> None:
        if not isinstance(topology, Schedule):
            check_type(topology)
            topology = Schedule.from_graphs([topology], name="static")
        self._schedule = topology
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self, step: int) -> T:
        period = self._schedule.period
        if period is None:
            return self._make(self._schedule(step))
        at = step % period
        if at not in self._made:
            self._made[at] = self._make(self._schedule(at))
        return self._made[at]


def mixing(topology: nx.DiGraph | Schedule) -> EachRound[csr_array]:
    """Returns the function from a step to its W, shape (n, n): ``W @ x`` averages over neighbors.

    W[i, j] is the weight that rank i gives to rank j. Indices are sorted.
    """
    return EachRound(topology, _matrix)


def size_of(topology: nx.DiGraph | Schedule) -> int:
    """Returns the number of ranks; raises TypeError where `topology` is something else."""
    if isinstance(topology, Schedule):
        return topology.size
    check_type(topology)
    return len(topology)


def _matrix(graph: nx.DiGraph) -> csr_array:
    w = sparse_mixing_matrix(graph)
    w.sort_indices()
    return w
