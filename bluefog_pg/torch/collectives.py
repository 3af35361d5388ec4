"""Operations of all ranks: allreduce, broadcast, allgather, each with its other forms.

`<operation>_nonblocking` returns a handle for `synchronize`; a trailing underscore means that the
result replaces the values of `tensor`.
"""

import torch
import torch.distributed as dist

from bluefog_pg import ops
from bluefog_pg.blocks.mean import HALVES
from bluefog_pg.torch.context import current
from bluefog_pg.torch.handles import Call, Job, Works, run, submit, synchronize
from bluefog_pg.torch.machines import machines_of

SUMMED_DTYPES = (
    *(torch.uint8, torch.int8, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


def allreduce(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """Returns the mean, or the sum, of all ranks' tensors; half precision is summed in float32.

    Args:
        tensor: of equal shape on all ranks; float16, bfloat16, float32, float64, or, for sums,
            uint8, int8, int32, int64.
        average: divide by the number of ranks.
        is_hierarchical_local: over the ranks of this machine only.
        name: for messages; two operations of one name must not be under way at once.

    Raises:
        AssertionError: the average of integers.
        ValueError: another dtype.
    """
    x = tensor.detach()
    return run(*_allreduce(x, torch.empty_like(x), average, is_hierarchical_local, name))


def allreduce_nonblocking(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> int:
    """`allreduce`; returns a handle."""
    x = tensor.detach()
    return submit(*_allreduce(x, torch.empty_like(x), average, is_hierarchical_local, name))


def allreduce_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """`allreduce` in place; returns `tensor`."""
    return run(*_allreduce(tensor.detach(), tensor, average, is_hierarchical_local, name))


def allreduce_nonblocking_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> int:
    """`allreduce_`; returns a handle."""
    return submit(*_allreduce(tensor.detach(), tensor, average, is_hierarchical_local, name))


def broadcast(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> torch.Tensor:
    """Returns the root's tensor on all ranks. Any dtype; of equal shape on all ranks.

    Raises:
        ValueError: root_rank is no rank.
    """
    x = tensor.detach()
    return run(*_broadcast(x, torch.empty_like(x), root_rank, name))


def broadcast_nonblocking(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> int:
    """`broadcast`; returns a handle."""
    x = tensor.detach()
    return submit(*_broadcast(x, torch.empty_like(x), root_rank, name))


def broadcast_(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> torch.Tensor:
    """`broadcast` in place; returns `tensor`."""
    return run(*_broadcast(tensor.detach(), tensor, root_rank, name))


def broadcast_nonblocking_(tensor: torch.Tensor, root_rank: int, name: str | None = None) -> int:
    """`broadcast_`; returns a handle."""
    return submit(*_broadcast(tensor.detach(), tensor, root_rank, name))


def allgather(tensor: torch.Tensor, name: str | None = None) -> torch.Tensor:
    """Returns all ranks' tensors along dimension 0, in the order of ranks.

    Any dtype; the first dimensions may differ between ranks. A 0-d tensor counts as shape (1,).
    """
    return synchronize(allgather_nonblocking(tensor, name))


def allgather_nonblocking(tensor: torch.Tensor, name: str | None = None) -> int:
    """`allgather`; returns a handle."""
    group, backend = current().group, current().backend
    x = tensor.detach().contiguous()
    rank, size = backend.rank(), backend.size()
    lower, higher = [*range(rank)], [*range(rank + 1, size)]

    def start(async_op: bool) -> Job:
        # From lower ranks and from higher ones apart, so that this rank's goes between them
        # without a word about sizes.
        works = [
            ops.neighbor_allgather(x, src_ranks=src, dst_ranks=dst, group=group, async_op=True)
            for src, dst in ((lower, higher), (higher, lower))
        ]
        own = x.reshape(1) if x.dim() == 0 else x

        def finish() -> torch.Tensor:
            before, after = (work.get_future().value()[0] for work in works)
            return torch.cat([before, own, after])

        return Works(works, finish)

    return submit("allgather", name, start)


def _allreduce(
    x: torch.Tensor, out: torch.Tensor, average: bool, is_local: bool, name: str | None
) -> Call:
    context = current()
    if x.dtype not in SUMMED_DTYPES:
        raise ValueError(f"Tensor type {x.type()} is not supported")
    if average and not x.is_floating_point():
        raise AssertionError(f"the average of {x.dtype} is no integer: give average=False")
    total = _own(x, out, torch.float32 if x.dtype in HALVES else x.dtype)

    def finish() -> torch.Tensor:
        if average:
            total.div_(len(context.layout.local_ranks) if is_local else context.backend.size())
        return _put(total, out)

    def start(async_op: bool) -> Job:
        if is_local:
            machines = machines_of(context)
            return machines.submit(lambda: (machines.sum(total), finish())[1])
        return Works([dist.all_reduce(total, group=context.group, async_op=async_op)], finish)

    return "allreduce", name, start


def _broadcast(x: torch.Tensor, out: torch.Tensor, root_rank: int, name: str | None) -> Call:
    context = current()
    if root_rank not in range(context.backend.size()):
        raise ValueError(f"root_rank must be in 0..{context.backend.size() - 1}, got {root_rank!r}")
    root_rank = int(root_rank)
    value = _own(x, out, x.dtype)
    data = value.view(-1).view(torch.uint8)  # bytes go whatever the dtype

    def start(async_op: bool) -> Job:
        work = dist.broadcast(data, group=context.group, group_src=root_rank, async_op=async_op)
        return Works([work], lambda: _put(value, out))

    return "broadcast", name, start


def _own(x: torch.Tensor, out: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns x in memory that may be written to: that of `out`, where it will do."""
    if out.dtype == dtype and out.is_contiguous():
        return out.detach().copy_(x)
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _put(value: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    if value.data_ptr() != out.data_ptr():
        out.detach().copy_(value)
    return out
