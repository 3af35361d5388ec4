"""Averaging and gathering over edges.

Each operation has a form that returns at once: `<operation>_nonblocking`, whose handle goes to
`synchronize`. Tensors may have any shape and strides, and require gradients: results do not.
"""

from collections.abc import Sequence

import torch

from bluefog_pg import ops
from bluefog_pg.blocks.block import AVERAGED_DTYPES
from bluefog_pg.torch import weights as call_weights
from bluefog_pg.torch.context import current
from bluefog_pg.torch.handles import Call, Job, Works, run, submit
from bluefog_pg.torch.machines import machines_of, static_weights
from bluefog_pg.torch.weights import DstWeights, SrcWeights


def neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: SrcWeights | None = None,
    dst_weights: DstWeights | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """Returns the weighted average of this rank's tensor and its in-neighbours'.

    self_weight_i x_i + sum over j in src_weights_i of src_weights_i[j] dst_weights_j[i] x_j

    Without weights, those of the topology. With self_weight and src_weights, these for the
    topology's in-neighbours; one that is left out counts 0. With all three, the neighbours of this
    call, whatever the topology: receives from the keys of src_weights, sends to those of
    dst_weights, scaled (a list: unscaled).

    Args:
        tensor: float16, bfloat16, float32 or float64; is not changed.
        enable_topo_check: with dst_weights, compare all ranks' neighbours first, by an allgather.
        name: for messages; two operations of one name must not be under way at once.

    Raises:
        ValueError: another dtype; weights that do not go together; unknown ranks; ranks disagree.
    """
    return run(*_average(tensor, self_weight, src_weights, dst_weights, enable_topo_check, name))


def neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: SrcWeights | None = None,
    dst_weights: DstWeights | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> int:
    """`neighbor_allreduce`; `tensor` must not change until `synchronize`."""
    return submit(*_average(tensor, self_weight, src_weights, dst_weights, enable_topo_check, name))


def hierarchical_neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: SrcWeights | None = None,
    dst_machine_weights: DstWeights | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """Returns the weighted average of the machines' means; all ranks of a machine get the same.

    self_weight_M m_M + sum over J in src_M of src_M[J] dst_J[M] m_J,  m_M = mean of machine M

    Without weights, those of the machine topology; else all three are given, with numbers of
    machines in the place of ranks. Machines are homogeneous. Each local rank exchanges its share
    of the tensor with that local rank of other machines.

    Raises:
        ValueError: as `neighbor_allreduce`.
        RuntimeError: no weights, and `set_machine_topology` has not been called.
    """
    given = self_weight, src_machine_weights, dst_machine_weights
    return run(*_average_of_machines(tensor, *given, enable_topo_check, name))


def hierarchical_neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: SrcWeights | None = None,
    dst_machine_weights: DstWeights | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> int:
    """`hierarchical_neighbor_allreduce`; `tensor` must not change until `synchronize`."""
    given = self_weight, src_machine_weights, dst_machine_weights
    return submit(*_average_of_machines(tensor, *given, enable_topo_check, name))


def neighbor_allgather(
    tensor: torch.Tensor,
    *,
    src_ranks: Sequence[int] | None = None,
    dst_ranks: Sequence[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """Returns the in-neighbours' tensors along dimension 0, this rank's not included.

    Without ranks in the order of `in_neighbor_ranks()`, else in that of src_ranks. Any dtype; the
    first dimensions may differ between ranks.

    Args:
        src_ranks, dst_ranks: whom to receive from and send to in this call; both or none.
        enable_topo_check, name: as in `neighbor_allreduce`.

    Raises:
        ValueError: one of src_ranks and dst_ranks is missing; unknown ranks; ranks disagree.
    """
    return run(*_gather(tensor, src_ranks, dst_ranks, enable_topo_check, name))


def neighbor_allgather_nonblocking(
    tensor: torch.Tensor,
    *,
    src_ranks: Sequence[int] | None = None,
    dst_ranks: Sequence[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> int:
    """`neighbor_allgather`; `tensor` must not change until `synchronize`."""
    return submit(*_gather(tensor, src_ranks, dst_ranks, enable_topo_check, name))


def check_averaged(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the tensor without its gradient; ValueError if it is of no averaged dtype."""
    if tensor.dtype not in AVERAGED_DTYPES:
        raise ValueError(f"Tensor type {tensor.type()} is not supported: convert it to a float")
    return tensor.detach()


def _average(
    tensor: torch.Tensor,
    self_weight: float | None,
    src_weights: SrcWeights | None,
    dst_weights: DstWeights | None,
    checks: bool,
    name: str | None,
) -> Call:
    context, x = current(), check_averaged(tensor)
    weights = call_weights.of_call(self_weight, src_weights, dst_weights)

    def start(async_op: bool) -> Job:
        if checks and "dst_weights" in weights:
            call_weights.check_edges(context.backend, weights)
        out = torch.empty_like(x)
        given = dict(weights, out=out, group=context.group, async_op=async_op)
        work = ops.neighbor_allreduce(x, **given)
        return Works([work if async_op else None], lambda: out)

    return "neighbor_allreduce", name, start


def _average_of_machines(
    tensor: torch.Tensor,
    self_weight: float | None,
    src_weights: SrcWeights | None,
    dst_weights: DstWeights | None,
    checks: bool,
    name: str | None,
) -> Call:
    context, x = current(), check_averaged(tensor)
    given = call_weights.of_call(self_weight, src_weights, dst_weights, needs_all=True)
    weights = given or static_weights(context)
    machines = machines_of(context)

    def start(async_op: bool) -> Job:
        return machines.submit(machines.average, x, weights, checks and bool(given))

    return "hierarchical_neighbor_allreduce", name, start


def _gather(
    tensor: torch.Tensor,
    src_ranks: Sequence[int] | None,
    dst_ranks: Sequence[int] | None,
    checks: bool,
    name: str | None,
) -> Call:
    context, x = current(), tensor.detach().contiguous()
    if (src_ranks is None) != (dst_ranks is None):
        raise ValueError("give both src_ranks and dst_ranks, or neither to use the topology")

    def start(async_op: bool) -> Job:
        if checks and src_ranks is not None:
            sources = call_weights.by_rank_of(src_ranks)
            weights = call_weights.of_call(1.0, sources, dst_ranks)
            call_weights.check_edges(context.backend, weights)
        given = dict(src_ranks=src_ranks, dst_ranks=dst_ranks, group=context.group)
        result = ops.neighbor_allgather(x, **given, async_op=async_op)
        if not async_op:
            return Works([], lambda: result)
        return Works([result], lambda: result.get_future().value()[0])

    return "neighbor_allgather", name, start
