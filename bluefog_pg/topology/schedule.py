"""Time-varying topologies."""

import operator
from collections.abc import Callable, Iterable, Iterator

import networkx as nx

from .build import check_size
from .graph import check_graph, check_type

UNBOUNDED_ROUNDS = 64
"""How many rounds stand for a schedule that never repeats, where all rounds are looked at."""


class Schedule:
    """A topology that changes from step to step; ``schedule(step)`` is that step's nx.DiGraph.

    It is a pure function of the step, so ranks that hold equal schedules agree without a word.
    Graphs are read-only (``nx.freeze``), and those of a periodic schedule are made once and shared:
    ``schedule(step) is schedule(step + period)``. Calls from several threads are safe.

    Args:
        graph_at: called with the round (step modulo period; the step itself without a period);
            returns an nx.DiGraph on 0..size-1. It must give the same on every rank.
        size: number of ranks.
        period: number of rounds after which it repeats; None if it never does.
        name: for messages and repr.

    Raises:
        TypeError: graph_at is not callable, or size or period is not an int.
        ValueError: size or period is below 1.
    """

    def __init__(
        self,
        graph_at: Callable[[int], nx.DiGraph],
        size: int,
        period: int | None = None,
        name: str = "schedule",
    ) -> None:
        if not callable(graph_at):
            raise TypeError(
                f"graph_at must be a function step -> nx.DiGraph, got {type(graph_at).__name__}; "
                f"for a sequence of graphs use Schedule.from_graphs(graphs)"
            )
        self.size = check_size(size)
        self.period = None if period is None else _check_period(period)
        self.name = name
        self._graph_at = graph_at
        self._made: dict[int, nx.DiGraph] = {}

    @classmethod
    def from_graphs(cls, graphs: Iterable[nx.DiGraph], name: str = "schedule") -> "Schedule":
        """Makes the schedule that repeats `graphs` in order; copies them.

        Raises:
            TypeError: one of them is not an nx.DiGraph.
            ValueError: there are none, they differ in size, or one is not a valid topology.
        """
        graphs = list(graphs)
        if not graphs:
            raise ValueError("a schedule needs at least one graph")
        check_type(graphs[0], expected="an nx.DiGraph")
        schedule = cls(graphs.__getitem__, len(graphs[0]), len(graphs), name)
        for step in range(len(graphs)):
            schedule(step)  # checks it and copies it now: the caller may change the graph later
        return schedule

    def __call__(self, step: int) -> nx.DiGraph:
        """Returns the graph of `step`, counted from 0.

        Raises:
            TypeError: step is not an int, or graph_at returned something else than an nx.DiGraph.
            ValueError: step is negative, or the graph is not valid for `size` ranks.
        """
        try:
            step = operator.index(step)
        except TypeError:
            raise TypeError(f"step must be an int, not {step!r}") from None
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        if self.period is None:
            return self._make(step)
        at = step % self.period
        if at not in self._made:
            # Two threads may both make the round; setdefault lets both return the same graph.
            self._made.setdefault(at, self._make(at))
        return self._made[at]

    def __repr__(self) -> str:
        return f"Schedule({self.name}, size={self.size}, period={self.period})"

    def _make(self, at: int) -> nx.DiGraph:
        graph = self._graph_at(at)
        try:
            graph = _frozen(graph)
            check_graph(graph, self.size, owner="schedule")
        except (TypeError, ValueError) as error:
            raise type(error)(f"round {at} of {self!r}: {error}") from error
        return graph


def rounds(topology: nx.DiGraph | Schedule) -> Iterator[nx.DiGraph]:
    """Gives the graphs of one period: one for a static graph.

    Of a schedule that never repeats it gives the rounds 0..63.
    """
    if isinstance(topology, Schedule):
        count = UNBOUNDED_ROUNDS if topology.period is None else topology.period
        return map(topology, range(count))
    return iter((topology,))


def _check_period(period: int) -> int:
    try:
        period = operator.index(period)
    except TypeError:
        raise TypeError(f"period must be an int or None, not {period!r}") from None
    if period < 1:
        raise ValueError(f"the period of a schedule must be at least 1, got {period}")
    return period


def _frozen(graph: nx.DiGraph) -> nx.DiGraph:
    check_type(graph, expected="an nx.DiGraph")
    # nx.freeze works in place: the caller's own graph must stay writable.
    return graph if nx.is_frozen(graph) else nx.freeze(graph.copy())
