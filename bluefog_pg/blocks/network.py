"""The graphs that one DecentralizedDataParallel averages over, its step, and what it has cost."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bluefog_pg.blocks.mean import Mean
from bluefog_pg.group import Neighborhood, Topology, TopologyLike

ALL = "all"
"""In the place of a graph's name: the exact average over all ranks, by the group's allreduce."""


@dataclass
class Traffic:
    """What a rank has sent and waited for.

    Of an allreduce of S bytes over n ranks, what a ring of them sends is counted: 2 S (n - 1) / n.
    """

    exchanges: int = 0
    bytes_sent: int = 0
    wait_seconds: float = 0.0


class Network:
    """Graphs by name ("W", and what else an algorithm asks for) at the present step of training."""

    def __init__(
        self,
        topology: TopologyLike | Neighborhood,
        graphs_of: Callable[[Topology], Mapping[str, Topology]],
        backend: Any,
        round_of: Callable[[int], int] = lambda step: step,
        payload_dtype: torch.dtype | None = None,
    ) -> None:
        """Collective: all ranks bring equal topologies, or all raise (see `Neighborhood`).

        Args:
            topology: what all ranks agree on.
            graphs_of: returns, for it, the graphs by name; it is equal on all ranks too.
            round_of: which round of a schedule a step averages over.
            payload_dtype: in which `start` sends over graphs what is of a wider dtype.
        """
        self.backend = backend
        self.payload_dtype = payload_dtype
        self._round_of = round_of
        self.step = 0
        self.traffic = Traffic()
        given = isinstance(topology, Neighborhood)
        agreed = topology if given else Neighborhood(topology, backend, of_averages=False)
        self._graphs = {
            name: agreed
            if graph is agreed.topology
            else Neighborhood(graph, backend, of_averages=False)
            for name, graph in graphs_of(agreed.topology).items()
        }

    @property
    def rank(self) -> int:
        return self.backend.rank()

    @property
    def size(self) -> int:
        return self.backend.size()

    def topology(self, name: str = "W") -> Topology:
        """Returns the nx.DiGraph or `Schedule` of this name."""
        return self._graphs[name].topology

    def names(self) -> list[str]:
        """Returns the graphs' names."""
        return list(self._graphs)

    def plan(self, name: str = "W") -> Any:
        """Returns what this rank does at the present step: a `Plan` with its weights."""
        return self._graphs[name].plan(self._round_of(self.step))[0]

    def start(
        self,
        values: list[torch.Tensor],
        arrivals: list[torch.Tensor],
        over: str,
        steps_ago: int = 0,
    ) -> Any:
        """Posts one exchange; its result goes to `arrivals`. Returns its Work.

        Over `ALL`, a value may be its own arrival. steps_ago: of a schedule it is the round of an
        earlier step. Over a graph, values of one dtype that is wider than the network's
        `payload_dtype` are rounded to that.
        """
        payload = None if over == ALL else self._payload_of(values)
        return self._post(values, arrivals, over, steps_ago, payload)

    def start_in_full(
        self, values: list[torch.Tensor], arrivals: list[torch.Tensor], over: str
    ) -> Any:
        """As `start`, whatever the `payload_dtype`."""
        return self._post(values, arrivals, over, 0, None)

    def _post(
        self,
        values: list[torch.Tensor],
        arrivals: list[torch.Tensor],
        over: str,
        steps_ago: int,
        payload: torch.dtype | None,
    ) -> Any:
        if over == ALL:
            work, copies = Mean(values, arrivals, self.backend), 2 * (self.size - 1) / self.size
        else:
            plan, at = self._graphs[over].plan(self._round_of(self.step - steps_ago))
            work, _ = self.backend.neighbor_allreduce(values, arrivals, plan, at, True, payload)
            copies = len(plan.destinations)
        sent = sum(value.numel() * (payload or value.dtype).itemsize for value in values)
        self.traffic.exchanges += 1
        self.traffic.bytes_sent += int(sent * copies)
        return work

    def _payload_of(self, values: list[torch.Tensor]) -> torch.dtype | None:
        payload = self.payload_dtype
        if payload is None:
            return None
        narrows = all(self.backend.is_narrower(payload, value.dtype) for value in values)
        return payload if narrows else None

    def wait(self, work: Any) -> None:
        """Waits for a Work, and counts the time."""
        began = time.perf_counter()
        try:
            work.wait()
        finally:
            self.traffic.wait_seconds += time.perf_counter() - began

    def barrier(self) -> None:
        """Waits until all ranks of the group have come here."""
        self.wait(self.backend.barrier())

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replaces a tensor by its mean over all ranks of the group, and returns it."""
        self.wait(self.backend.allreduce([tensor]))
        return tensor.div_(self.size)

    def allocate(self, numel: int, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Returns memory that neighbours of this host can read in place."""
        return self.backend.allocate_shared(numel, dtype=dtype, device=device)
