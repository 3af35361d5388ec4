"""Sends and receives of one step, as one would write them on Gloo and on MPI."""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from harness.case import Case, Round

SMALL = 1 << 16  # bytes; below that numpy combines faster, above it torch
Exchange = Callable[[int], list[torch.Tensor]]
"""step -> what has been received, in the order of the round's sources."""


def over_gloo(case: Case, x: torch.Tensor, received: list[torch.Tensor]) -> Exchange:
    """`x` goes to all destinations; `received` are the buffers for what comes."""
    group = case.world.gloo

    def operations(step: Round) -> list[dist.P2POp]:
        pairs = zip(received, step.sources, strict=False)
        receives = [dist.P2POp(dist.irecv, buffer, rank, group) for buffer, rank in pairs]
        return receives + [dist.P2POp(dist.isend, x, rank, group) for rank in step.destinations]

    prepared = [operations(step) for step in case.rounds]

    def exchange(step: int) -> list[torch.Tensor]:
        for work in dist.batch_isend_irecv(prepared[step % len(prepared)]):
            work.wait()
        return received

    return exchange


def over_mpi(case: Case, x: torch.Tensor, received: list[torch.Tensor]) -> Exchange:
    """As over_gloo."""
    mpi = case.world.mpi
    world = mpi.COMM_WORLD
    source, *buffers = (t.numpy().view(np.uint8) for t in (x, *received))  # MPI has no float16

    def exchange(step: int) -> list[torch.Tensor]:
        at = case.rounds[step % len(case.rounds)]
        requests = [world.Irecv(b, r) for b, r in zip(buffers, at.sources, strict=False)]
        requests += [world.Isend(source, rank) for rank in at.destinations]
        mpi.Request.Waitall(requests)
        return received

    return exchange


def combine_with_torch(case: Case, step: int, received: list[torch.Tensor]) -> None:
    """case.y = the weighted sum."""
    at = case.rounds[step % len(case.rounds)]
    torch.mul(case.x, at.self_weight, out=case.y)
    for buffer, weight in zip(received, at.sources.values(), strict=False):
        case.y.add_(buffer, alpha=weight)


def combine_with_numpy(case: Case) -> Callable[[int], None]:
    """As combine_with_torch, of case.received; the call takes the step."""
    x, y, received = case.x.numpy(), case.y.numpy(), [r.numpy() for r in case.received]

    def combine(step: int) -> None:
        at = case.rounds[step % len(case.rounds)]
        np.multiply(x, at.self_weight, out=y)
        for buffer, weight in zip(received, at.sources.values(), strict=False):
            buffer *= weight
            np.add(y, buffer, out=y)

    return combine
