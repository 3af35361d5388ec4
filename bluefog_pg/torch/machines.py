"""Operations of whole machines: inside of one, and between them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist

from bluefog_pg import ops
from bluefog_pg.blocks.mean import widened
from bluefog_pg.group import backend_of
from bluefog_pg.topology import recv_weights, send_ranks
from bluefog_pg.torch.context import Context, homogeneous
from bluefog_pg.torch.weights import check_edges


class Machines:
    """Two groups of this rank's, and a thread that runs operations on them, first in first out.

    An operation is several of torch.distributed in turn, which none of its Works can stand for;
    the thread makes them one Future. Groups are made at first use, by their members alone.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._layout = context, context.layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bluefog-machines")

    @cached_property
    def inside(self) -> Any:
        """The ranks of this machine."""
        return _group_of(self._layout.local_ranks)

    @cached_property
    def across(self) -> Any:
        """This local rank of every machine; its ranks are the numbers of machines."""
        return _group_of(homogeneous().peers)

    def submit(self, operation: Callable[..., torch.Tensor], *args: Any) -> "Future[torch.Tensor]":
        """Lets the thread run one of the operations below."""
        _ = self.inside  # made here, in the order of the program
        if operation == self.average:
            _ = self.across
        return self._thread.submit(_on_current_stream(operation), *args)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replaces a tensor by its sum over the ranks of this machine, and returns it."""
        dist.all_reduce(tensor, group=self.inside)
        return tensor

    def average(
        self, tensor: torch.Tensor, weights: Mapping[str, Any], checks_edges: bool = False
    ) -> torch.Tensor:
        """Returns the weighted average of machines' means; see `hierarchical_neighbor_allreduce`.

        Each rank sums up its share over the machine, averages that with other machines, and the
        shares are put together again: each byte of a mean leaves a machine once per neighbour.
        """
        if checks_edges:
            check_edges(backend_of(self.across), weights)
        ranks, numel = len(self._layout.local_ranks), tensor.numel()
        flat = widened(tensor.reshape(-1))
        flat = torch.nn.functional.pad(flat, (0, -numel % ranks))
        share = flat.new_empty(flat.numel() // ranks)
        dist.reduce_scatter_tensor(share, flat, group=self.inside)
        share = ops.neighbor_allreduce(share.div_(ranks), **weights, group=self.across)
        result = torch.empty_like(flat)
        dist.all_gather_into_tensor(result, share, group=self.inside)
        return result[:numel].view(tensor.shape).to(tensor.dtype)

    def close(self) -> None:
        """Waits for what is under way, and ends the groups, unless torch has done that already."""
        self._thread.shutdown()
        if dist.group.WORLD is self._context.world:
            for group in (vars(self).get("inside"), vars(self).get("across")):
                if group is not None:
                    dist.destroy_process_group(group)


def machines_of(context: Context) -> Machines:
    """Returns those of a context, made at first use."""
    if context.machines is None:
        context.machines = Machines(context)
        context.resources.callback(context.machines.close)
    return context.machines


def static_weights(context: Context) -> dict[str, Any]:
    """Returns the weights that the machine topology gives this machine.

    Raises:
        RuntimeError: there is none.
    """
    if context.machine_topology is None:
        raise RuntimeError("set a machine topology first: bf.set_machine_topology(...)")
    graph, machine = context.machine_topology.used(), context.layout.machine
    self_weight, sources = recv_weights(graph, machine)
    destinations = dict.fromkeys(send_ranks(graph, machine), 1.0)
    return {"self_weight": self_weight, "src_weights": sources, "dst_weights": destinations}


def _on_current_stream(
    operation: Callable[..., torch.Tensor],
) -> Callable[..., torch.Tensor]:
    """Returns the operation, on the stream that is current now also in another thread."""
    if not torch.cuda.is_initialized():
        return operation
    stream = torch.cuda.current_stream()

    def run(*args: Any) -> torch.Tensor:
        with torch.cuda.stream(stream):
            return operation(*args)

    return run


def _group_of(ranks: tuple[int, ...]) -> Any:
    return dist.new_group([*ranks], backend="bluefog", use_local_synchronization=True)
