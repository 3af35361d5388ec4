"""Ranks with GPUs that die or do not come: by default all processes end, and in time."""

import os
import re
import select
import signal

import emulated
import pytest
import torch
import torch.distributed as dist
from device_group import ENGINES, average, start
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import attempt

import bluefog_pg as bf

pytestmark = needs_cuda_module
ENDS = re.compile("Aborting process on rank|taking the entire process down")


def killed(rank, n):
    talk = start(rank)
    if rank == 2:
        talk.wait(["under way/0", "under way/1", "under way/3"])
        os.kill(os.getpid(), signal.SIGKILL)
    average(rank)
    talk.set(f"under way/{rank}", "")
    while True:  # until torch's watchdog ends the process
        attempt(average, rank)
        attempt(torch.cuda.synchronize)


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_rank_ends_the_group(engine):
    """All of it, also ranks that are no neighbours."""
    _, printed = run_ranks(killed, 4, timeout=30, env=ENGINES[engine], dies=range(4))
    assert len(ENDS.findall(printed)) == 3, printed


def absent(rank, n, where):
    """Rank 2 does not come to an operation, and sees that the others end for it."""
    talk = start(rank)
    x = bf.empty(1000, device="cuda") if where == "in place" else torch.empty(1000, device="cuda")
    bf.neighbor_allreduce(x)
    torch.cuda.synchronize()
    dist.barrier()
    talk.set(f"pid/{rank}", str(os.getpid()))
    if rank == 2:
        ended = [os.pidfd_open(int(talk.get(f"pid/{other}"))) for other in (0, 1, 3)]
        talk.set("go", "")
        for pid in ended:
            assert select.select([pid], [], [], 30)[0]
        print("rank 2 saw them end", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)  # a normal end waits for torch's watchdog
    talk.wait(["go"])
    for _ in range(2):  # to the second one rank 0's neighbours do not come
        bf.neighbor_allreduce(x)
        torch.cuda.synchronize()


@pytest.mark.parametrize("where", ["sent", "in place"])
def test_absent_rank_ends_the_group(where):
    """What is sent is watched by torch, what is read in place by the kernels themselves."""
    _, printed = run_ranks(absent, 4, where, timeout=30, env=ENGINES["nccl"], dies=range(4))
    assert "rank 2 saw them end" in printed, printed
    if where == "sent":
        assert len(ENDS.findall(printed)) == 3, printed
    else:
        for rank in (1, 3):
            words = f"wait_signal: rank {rank} failed to receive signal from rank 2 on channel "
            assert re.search(words + ".* after 1500 milliseconds", printed), printed


def test_end_of_the_process():
    """Without destroy_process_group; with work behind and work under way."""
    output = emulated.run(
        "-m", "torch.distributed.run", "--nproc_per_node=2", "devices/leave.py", gpus=2, seconds=60
    )
    passed = re.findall("left after (.*) s", output)
    assert len(passed) == 2 and max(map(float, passed)) < 10, output
