"""What a process group knows of its neighbours: topologies, checked and compiled into plans."""

import json
import operator
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import networkx as nx
import torch
import torch.distributed as dist

from bluefog_pg import topology as topologies
from bluefog_pg._extension import load
from bluefog_pg.errors import MismatchError

Topology = nx.DiGraph | topologies.Schedule
TopologyLike = Topology | str | Callable[[int], Topology]


# Finding a group's backend costs as much as a small exchange.
_members: WeakKeyDictionary[dist.ProcessGroup, "tuple[Any, GroupState]"] = WeakKeyDictionary()


def backend_of(group: Any = None) -> Any:
    """Returns the BluefogBackend of `group` (default: the world).

    Sees through the wrapper that TORCH_DISTRIBUTED_DEBUG=DETAIL puts around it. A BluefogBackend
    is returned as it is.

    Raises:
        ValueError: this rank is not in the group, or the group has another backend.
    """
    return member(group)[0]


def member(group: Any = None) -> "tuple[Any, GroupState]":
    """Returns the backend of `group`, as `backend_of` does, and what is kept for it."""
    group = dist.GroupMember.WORLD if group is None else group
    try:
        return _members[group]
    except (KeyError, TypeError):  # not yet known, or no group
        backend = _find_backend(group)
        found = backend, GroupState.of(backend)
        if backend is not group:
            _members[group] = found
        return found


def _find_backend(group: Any) -> Any:
    extension = load()
    if isinstance(group, extension.BluefogBackend):
        return group
    if group is None:
        raise ValueError('call torch.distributed.init_process_group("bluefog") first')
    if not isinstance(group, dist.ProcessGroup):
        raise ValueError(f"this rank is not a member of the process group ({group!r})")
    backends = [unwrapped(group._get_backend(device)) for device in group._device_types]
    for backend in backends:
        if isinstance(backend, extension.BluefogBackend):
            return backend
    raise ValueError(
        f"neighbor operations need a process group of backend 'bluefog', this one has "
        f"{', '.join(sorted({type(backend).__name__ for backend in backends}))}; make it with "
        "new_group(backend='bluefog')"
    )


def unwrapped(backend: Any) -> Any:
    """Returns the backend that TORCH_DISTRIBUTED_DEBUG=DETAIL has put a wrapper around."""
    while hasattr(backend, "wrapped_pg"):
        backend = backend.wrapped_pg
    return backend


class Neighborhood:
    """A topology as one rank of one group sees it: a plan per step.

    Making one is collective: all ranks must bring equal topologies, or all raise.

    Args:
        topology: an nx.DiGraph, a `Schedule`, a registered name ("ring"), or a function that makes
            one from the number of ranks (`bluefog_pg.ring`).
        backend: the group's BluefogBackend.
        of_averages: warn where this rank's weights do not sum to 1.

    Raises:
        TypeError, ValueError: this rank's topology cannot serve the group.
        MismatchError: some rank's topology cannot, or ranks hold different ones; names the edges.
    """

    def __init__(self, topology: TopologyLike, backend: Any, of_averages: bool = True) -> None:
        self._rank, self._size = backend.rank(), backend.size()
        problem: Exception | None = None
        try:
            topology = resolve(topology, self._size)
            topologies.validate(topology, self._size)
        except Exception as error:  # also from the caller's function: the others wait for a word
            problem = error
        _agree(backend, topology, problem)
        self.topology: Topology = topology
        self.period = topology.period if isinstance(topology, topologies.Schedule) else 1
        self._compile = lru_cache(maxsize=self.period or 128)(self._compile_round)
        if of_averages:
            self._warn_of_unnormalised_weights()

    def plan(self, step: int) -> tuple[Any, int]:
        """Returns this rank's plan at `step`, and the round that neighbours compare."""
        at = step if self.period is None else step % self.period
        return self._compile(at), at

    def _compile_round(self, at: int) -> Any:
        is_schedule = isinstance(self.topology, topologies.Schedule)
        graph = self.topology(at) if is_schedule else self.topology
        self_weight, sources = topologies.recv_weights(graph, self._rank)
        destinations = [(rank, 1.0) for rank in topologies.send_ranks(graph, self._rank)]
        return load().Plan(self._rank, self._size, self_weight, list(sources.items()), destinations)

    def _warn_of_unnormalised_weights(self) -> None:
        plan, _ = self.plan(0)
        total = plan.self_weight + sum(weight for _, weight in plan.sources)
        if abs(total - 1) > 1e-6:
            warnings.warn(
                f"the weights of rank {self._rank} sum to {total:.6g}, not 1: its result is not an "
                "average (push-sum and its kin want that; otherwise check the topology)",
                stacklevel=4,
            )


class GroupState:
    """The topology of a group and its step; kept in the backend object, one per group."""

    def __init__(self) -> None:
        self.neighborhood: Neighborhood | None = None
        self.step = 0
        # An environment variable, read when torch was imported.
        self.compares_plans = dist.get_debug_level() == dist.DebugLevel.DETAIL
        self._windows: Any = None

    @property
    def windows(self) -> Any:
        """The group's `GroupWindows`."""
        if self._windows is None:
            from bluefog_pg._window import GroupWindows

            self._windows = GroupWindows()
        return self._windows

    @staticmethod
    def of(backend: Any) -> "GroupState":
        if backend._state is None:
            backend._state = GroupState()
        return backend._state

    def plan(self, step: int | None) -> tuple[Any, int]:
        """Returns plan and round of `step`; without one, of the group's own step."""
        if self.neighborhood is None:
            raise ValueError(
                "no topology is set: call bluefog_pg.set_topology(...), or give the call its own "
                "neighbours (self_weight, src_weights and dst_weights)"
            )
        return self.neighborhood.plan(self.step if step is None else operator.index(step))

    def run(self, backend: Any, advance: bool, operation: Callable[..., Any], *args: Any) -> Any:
        """Calls an operation; if it starts and `advance` is set, the group is one step further.

        One that is refused for this rank's arguments is no step: the caller may mend them, and is
        then where the other ranks are.
        """
        before = backend.sequence
        try:
            return operation(*args)
        finally:
            if advance and backend.sequence != before:
                self.step += 1


def resolve(topology: TopologyLike, size: int) -> Topology:
    """Returns the topology for `size` ranks that a name or a constructor stands for."""
    if isinstance(topology, str):
        topology = topologies.get(topology)
    if callable(topology) and not isinstance(topology, topologies.Schedule | nx.DiGraph):
        topology = topology(size)
    return topology


def compare_plans(backend: Any, plan: Any) -> None:
    """Checks that each send of this call is expected, as TORCH_DISTRIBUTED_DEBUG=DETAIL asks.

    Collective, and slow. Without it, of two ranks of which one has an edge of weights given by the
    call and the other has not, the first learns of it when the other does not take part, and the
    second never.

    Raises:
        MismatchError: on all ranks; names every edge that only one end has.
    """
    own = [[rank for rank, _ in edges] for edges in (plan.sources, plan.destinations)]
    views = [json.loads(view) for view in all_gather_bytes(backend, json.dumps(own).encode())]
    sends = {(src, dst) for src, (_, destinations) in enumerate(views) for dst in destinations}
    receives = {(src, dst) for dst, (sources, _) in enumerate(views) for src in sources}
    problems = [
        f"rank {src} sends to rank {dst}, which does not have it among its sources"
        if (src, dst) in sends
        else f"rank {dst} wants to receive from rank {src}, which does not send to it"
        for src, dst in sorted(sends ^ receives)
    ]
    if problems:
        raise MismatchError("; ".join(problems))


def _agree(backend: Any, topology: Topology, problem: Exception | None) -> None:
    """Raises, on all ranks alike, unless all of them hold the same valid topology."""
    own = b"\0" * 32 if problem else topologies.fingerprint(topology)
    fingerprints = all_gather_bytes(backend, own)
    if problem is None and all(other == own for other in fingerprints):
        return
    details = [
        json.loads(text)
        for text in all_gather_bytes(
            backend,
            json.dumps(str(problem) if problem else topologies.edge_list(topology)).encode(),
        )
    ]
    if problem is not None:
        raise problem
    for rank, detail in enumerate(details):
        if isinstance(detail, str):
            raise MismatchError(f"rank {rank} cannot use its topology: {detail}")
    other = next(r for r, value in enumerate(fingerprints) if value != fingerprints[0])
    difference = topologies.describe_difference(
        details[0], details[other], name_a="rank 0", name_b=f"rank {other}"
    )
    raise MismatchError(f"ranks 0 and {other} have different topologies: {difference}")


def all_gather_bytes(backend: Any, data: bytes) -> list[bytes]:
    """Returns every rank's bytes; lengths may differ."""
    size = backend.size()
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    backend.allgather([lengths], [torch.tensor([len(data)])]).wait()
    longest = int(max(lengths))
    padded = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8)
    gathered = [torch.empty(longest, dtype=torch.uint8) for _ in range(size)]
    backend.allgather([gathered], [padded]).wait()
    return [
        bytes(tensor.numpy().tobytes()[: int(length)])
        for tensor, length in zip(gathered, lengths, strict=True)
    ]
