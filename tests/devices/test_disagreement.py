"""Ranks whose tensors on GPUs differ, under TORCH_DISTRIBUTED_DEBUG=DETAIL."""

from functools import partial

import pytest
import torch.distributed as dist
from device_group import TIMEOUT, average, averages, set_timeout, start
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import attempt, raises, value_of

import bluefog_pg as bf
from bluefog_pg import MismatchError

pytestmark = needs_cuda_module


def disagreeing(rank, n, own):
    """TORCH_DISTRIBUTED_DEBUG=DETAIL compares on the host before anything is enqueued."""
    start(rank, own)
    set_timeout(60)
    x, longer = value_of(rank, (3,)).cuda(), value_of(rank, (4,)).cuda()

    def disagree(operation, mine, *words):
        """On tensors that are others on rank 2 alone; rank 0 is no neighbour of it."""
        words = words if rank != 0 else ("rank 0: other ranks do not agree with their neighbours",)
        for kwargs in ({}, {"async_op": True}):
            call = partial(operation, mine if rank == 2 else x, **kwargs)
            raises(MismatchError, *words, call=call)

    both = "float32[3] on cuda", "rank 2 has 1 tensor: float32[4] on cuda"
    both = both[:: -1 if rank == 3 else 1]  # by rank
    disagree(bf.neighbor_allreduce, longer, *both)
    disagree(bf.neighbor_allgather, longer, *both)
    disagree(bf.neighbor_allreduce, x.double(), "float64[3] on cuda")
    raises(
        MismatchError,
        "rank 0 sends to rank 1, which does not have it among its sources",
        call=lambda: average(
            rank,
            src_weights=[(rank - 1) % n] if rank != 1 else [2],
            dst_weights=[(rank + 1) % n],
        ),
    )
    averages(rank)  # which is as if nothing had been
    # The device is compared, too; whoever has the CPU's tells his neighbours, and nobody else.
    set_timeout(TIMEOUT)
    error = attempt(bf.neighbor_allreduce, x.cpu() if rank == 2 else x)
    assert error and (rank == 0 or type(error) is MismatchError), repr(error)
    assert rank == 0 or ("float32[3] on cuda" in str(error) and "tensor: float32[3]" in str(error))
    dist.distributed_c10d._abort_process_group()


@pytest.mark.parametrize("own", [False, True], ids=["torch's communicator", "own communicator"])
def test_disagreement_is_found_under_detail(own):
    run_ranks(disagreeing, 4, own, env={"TORCH_DISTRIBUTED_DEBUG": "DETAIL"})
