"""Averaging between two ranks, of which no other needs to know."""

import torch
import torch.distributed as dist

from bluefog_pg.blocks.mean import widened
from bluefog_pg.torch.context import current
from bluefog_pg.torch.handles import Job, Works, submit, synchronize
from bluefog_pg.torch.neighbor import check_averaged


def pair_gossip(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
) -> torch.Tensor:
    """Returns self_weight x + pair_weight y, where y is the target's tensor; by default the mean.

    Both partners call it, each with the other as the target; other ranks need not.

    Raises:
        ValueError: one weight without the other, another dtype, or no such other rank.
    """
    return synchronize(pair_gossip_nonblocking(tensor, target_rank, self_weight, pair_weight, name))


def pair_gossip_nonblocking(
    tensor: torch.Tensor,
    target_rank: int,
    self_weight: float | None = None,
    pair_weight: float | None = None,
    name: str | None = None,
) -> int:
    """`pair_gossip`; `tensor` must not change until `synchronize`."""
    group, backend = current().group, current().backend
    if (self_weight is None) != (pair_weight is None):
        raise ValueError("give both self_weight and pair_weight, or neither for the mean")
    if target_rank == backend.rank() or target_rank not in range(backend.size()):
        raise ValueError(
            f"target_rank of rank {backend.rank()} must be another of 0..{backend.size() - 1}, "
            f"got {target_rank!r}"
        )
    target_rank = int(target_rank)
    x = check_averaged(tensor).contiguous()
    own, other = (0.5, 0.5) if self_weight is None else (self_weight, pair_weight)

    def start(async_op: bool) -> Job:
        y = torch.empty_like(x)
        both = [
            dist.P2POp(dist.isend, x, group=group, group_peer=target_rank),
            dist.P2POp(dist.irecv, y, group=group, group_peer=target_rank),
        ]  # at once: NCCL's sends wait on the device for the partner's receive
        works = dist.batch_isend_irecv(both)
        return Works(works, lambda: (own * widened(x) + other * widened(y)).to(x.dtype))

    return submit("pair_gossip", name, start)
