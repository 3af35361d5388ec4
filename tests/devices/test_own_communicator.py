"""BluefogOptions(own_communicator=True): faults are errors that name what was under way."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from device_group import ENGINES, TIMEOUT, average, own_records, start, until
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import attempt, raises

from bluefog_pg import AbortedError, NeighborTimeoutError, PeerLostError

pytestmark = needs_cuda_module


def killed_with_own(rank, n):
    talk = start(rank, own=True)
    if rank == 2:
        talk.wait(["under way/0", "under way/1", "under way/3"])
        os.kill(os.getpid(), signal.SIGKILL)
    work = average(rank, async_op=True)
    talk.set(f"under way/{rank}", "")
    if rank in (1, 3):
        until(lambda: own_records()[-1]["state"] != "enqueued")
        error = attempt(work.wait)
        assert type(error) is PeerLostError, repr(error)
        assert "neighbor_allreduce #2 (" in str(error) and f"{rank} -> 2" in str(error)
        last = own_records()[-1]
        assert last["state"] == "failed" and last["error"] == str(error)
        assert [2, rank] in last["edges"] and last["sequence"] == 2
        assert own_records()[-2]["state"] == "completed"
        assert not work.is_success()
    ends(rank)


def ends(rank):
    """All later calls raise, and the end comes soon."""
    errors = []
    until(lambda: errors.append(attempt(average, rank)) or errors[-1])
    assert type(errors[-1]) in (PeerLostError, NeighborTimeoutError), repr(errors[-1])
    for async_op in (False, True):
        raises(type(errors[-1]), str(errors[-1]), call=lambda a=async_op: average(rank, async_op=a))
    torch.cuda.synchronize()  # no stream waits for ever
    began = time.monotonic()
    if rank == 0:
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()
    assert time.monotonic() - began < 5


def test_killed_rank_with_own_communicator():
    run_ranks(killed_with_own, 4, dies=[2], env=ENGINES["nccl"])


def absent_from_own(rank, n):
    talk = start(rank, own=True)
    if rank != 2:
        began = time.monotonic()
        work = average(rank, async_op=True)
        if rank != 0:
            until(lambda: own_records()[-1]["state"] == "failed")
            passed = time.monotonic() - began
            assert TIMEOUT <= passed < TIMEOUT + 2
            raises(
                NeighborTimeoutError,
                f"rank {rank}: neighbor_allreduce #2 (",
                f"2 -> {rank}",
                "has not ended after 1.",
                "timeout 1.5 s",
                call=work.wait,
            )
        talk.set(f"over/{rank}", "")
    else:
        talk.wait(["over/0", "over/1", "over/3"])
    # Collectives go through torch's communicator.
    x = torch.full((3,), float(rank), device="cuda")
    dist.all_reduce(x)
    assert x.tolist() == [6.0] * 3
    ends(rank)


def test_absent_rank_with_own_communicator():
    run_ranks(absent_from_own, 4, env=ENGINES["nccl"])


def ended_under_way(rank, n, own, how):
    """Rank 1 ends its group with work that waits for rank 2, in vain."""
    talk = start(rank, own)
    if rank == 1:
        works = [average(rank, async_op=True) for _ in range(3)]
        began = time.monotonic()
        if how == "abort":
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()
        passed = time.monotonic() - began
        assert passed < 1 if how == "abort" else TIMEOUT <= passed < TIMEOUT + 2
        torch.cuda.synchronize()  # no stream waits for ever
        if own:
            kind = AbortedError if how == "abort" else NeighborTimeoutError
            for work in works:
                raises(kind, "rank 1", call=work.wait)
        talk.set("over", "")
    else:
        talk.wait(["over"])
        dist.distributed_c10d._abort_process_group()


@pytest.mark.parametrize("own, how", [(False, "abort"), (True, "abort"), (True, "destroy")])
def test_end_with_work_under_way(own, how):
    """destroy_process_group of torch's communicator waits until its watchdog ends the process."""
    run_ranks(ended_under_way, 3, own, how, env=ENGINES["nccl"])
