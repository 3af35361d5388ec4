"""Ranks that end without destroying their group, for test_faults.py."""

import atexit
import time
from datetime import timedelta

import torch
import torch.distributed as dist

import bluefog_pg as bf

began = None


@atexit.register  # and so called last
def say():
    print(f"left after {time.monotonic() - began:.1f} s", flush=True)


dist.init_process_group("bluefog")
rank = dist.get_rank()
torch.cuda.set_device(rank)
own = dist.new_group(backend="bluefog", pg_options=bf.BluefogOptions(own_communicator=True))
for group in (None, own):
    bf.set_topology(bf.ring(2), group=group)
    x = torch.full((1000,), float(rank), device="cuda")
    for _ in range(3):
        work = bf.neighbor_allreduce(x, group=group, async_op=True)
    work.wait()
    assert work.get_future().value()[0].tolist() == [0.5] * 1000
own.set_timeout(timedelta(seconds=1))
if rank == 0:
    bf.neighbor_allreduce(x, group=own, async_op=True)  # rank 1 does not come
began = time.monotonic()
