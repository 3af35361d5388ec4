"""How the parameters of a model go to other ranks, as the optimizer's attributes say."""

import weakref
from concurrent.futures import Future
from enum import Enum
from typing import Any

import torch

from bluefog_pg import ops
from bluefog_pg.blocks.network import ALL, Network
from bluefog_pg.group import GroupState
from bluefog_pg.torch import weights as call_weights
from bluefog_pg.torch.context import current
from bluefog_pg.torch.machines import machines_of, static_weights


class CommunicationType(Enum):
    """What an optimizer averages over."""

    neighbor_allreduce = "neighbor.allreduce"
    hierarchical_neighbor_allreduce = "hierarchical.neighbor.allreduce"
    allreduce = "allreduce"
    empty = "empty"


class ByAttributes(Network):
    """The network of `bluefog_pg.blocks`, with topology and weights from outside, at each start."""

    def __init__(self, optimizer: Any) -> None:
        self._context = current()
        super().__init__(
            GroupState.of(self._context.backend).neighborhood, lambda _: {}, self._context.backend
        )
        self._knobs = weakref.proxy(optimizer)  # which owns this

    def start(
        self,
        values: list[torch.Tensor],
        arrivals: list[torch.Tensor],
        over: Any,
        steps_ago: int = 0,
    ) -> Any:
        """Posts an exchange over a `CommunicationType` or `ALL`; returns what `wait` waits for."""
        if over in (ALL, CommunicationType.allreduce):
            return super().start(values, arrivals, ALL, steps_ago)
        if over is CommunicationType.neighbor_allreduce:
            return self._with_neighbors(values, arrivals)
        return _Arriving(self._with_machines(values), arrivals)

    def _with_neighbors(self, values: list[torch.Tensor], arrivals: list[torch.Tensor]) -> Any:
        o = self._knobs
        weights = call_weights.of_call(o.self_weight, o.src_weights, o.dst_weights)
        if o.enable_topo_check and "dst_weights" in weights:
            call_weights.check_edges(self.backend, weights)
        return ops.neighbor_allreduce(
            values, **weights, out=arrivals, group=self._context.group, async_op=True
        )

    def _with_machines(self, values: list[torch.Tensor]) -> "list[Future[torch.Tensor]]":
        o = self._knobs
        given = o.self_weight, o.src_machine_weights, o.dst_machine_weights
        weights = call_weights.of_call(*given, needs_all=True)
        checks = o.enable_topo_check and bool(weights)
        weights = weights or static_weights(self._context)
        machines = machines_of(self._context)
        return [machines.submit(machines.average, value, weights, checks) for value in values]


class _Arriving:
    """Futures of values, as a Work that puts them in place."""

    def __init__(self, futures: "list[Future[torch.Tensor]]", arrivals: list[torch.Tensor]) -> None:
        self._futures, self._arrivals = futures, arrivals

    def wait(self) -> None:
        for arrival, future in zip(self._arrivals, self._futures, strict=True):
            arrival.copy_(future.result())
