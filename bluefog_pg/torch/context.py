"""What `init` has set up: the process group, this rank's place in it, and the topologies."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from bluefog_pg.torch.layout import Layout


@dataclass(frozen=True)
class Chosen:
    """A graph, and whether its weights count (or 1 / (in-degree + 1) each)."""

    graph: nx.DiGraph
    is_weighted: bool

    def used(self) -> nx.DiGraph:
        """Returns the graph that is averaged over; without weights, unless they count."""
        if self.is_weighted:
            return self.graph
        bare = nx.DiGraph()
        bare.add_nodes_from(self.graph)
        bare.add_edges_from(self.graph.edges())
        return bare


@dataclass
class Context:
    """One per process, between `init` and `shutdown`."""

    world: Any
    """torch's default group at the time, to notice when it is another one."""
    group: Any
    backend: Any
    layout: Layout
    topology: Chosen | None = None
    machine_topology: Chosen | None = None
    is_suspended: bool = False
    machines: Any = None
    """The `Machines` of hierarchical operations, once one has been called."""
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What `shutdown` closes, the last first."""


_current: Context | None = None


def current() -> Context:
    """Returns the context.

    Raises:
        ValueError: `init` has not been called.
    """
    if _current is None:
        raise ValueError("BlueFog has not been initialized; use bf.init().")
    return _current


def replace(context: Context | None) -> Context | None:
    """Makes this the context, and returns the one before."""
    global _current
    before, _current = _current, context
    return before


def homogeneous() -> Layout:
    """Returns the layout, where all machines have equally many ranks.

    Raises:
        AssertionError: they have not.
    """
    layout = current().layout
    if not layout.is_homogeneous():
        raise AssertionError(
            f"machines must have equally many ranks, in order; they have {layout.machines}"
        )
    return layout


def size() -> int:
    """Returns the number of ranks."""
    return current().backend.size()


def rank() -> int:
    """Returns the number of this process, 0..size()-1."""
    return current().backend.rank()


def local_size() -> int:
    """Returns how many ranks this machine has."""
    return len(current().layout.local_ranks)


def local_rank() -> int:
    """Returns the number of this process on its machine, 0..local_size()-1."""
    return current().layout.local_rank


def machine_size() -> int:
    """Returns the number of machines; they must be homogeneous."""
    return len(homogeneous().machines)


def machine_rank() -> int:
    """Returns the number of this machine, 0..machine_size()-1; machines must be homogeneous."""
    return homogeneous().machine


def is_homogeneous() -> bool:
    """Whether all machines have equally many ranks, numbered machine by machine."""
    return current().layout.is_homogeneous()
