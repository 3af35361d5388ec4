"""A group whose ranks have a GPU each (emulated_ranks.py), for tests in which something fails."""

import time
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from support import assert_same, dense, exact_weights, store, value_of

import bluefog_pg as bf
from bluefog_pg.group import backend_of

TIMEOUT = 1.5  # s
ENGINES = {  # of torch, from 2.15 on; 100: ms that they give the flight recorder before they abort
    "nccl": {"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "100"},
    "nccl-legacy": {"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "100", "TORCH_DIST_USE_NCCL2": "0"},
}


def start(rank, own=False):
    """Makes the group, and averages once; from then on the timeout is short."""
    warnings.filterwarnings("ignore", "the weights of rank")
    torch.cuda.set_device(rank)
    dist.init_process_group("bluefog", pg_options=bf.BluefogOptions(own_communicator=own))
    bf.set_topology(exact_weights(bf.ring(dist.get_world_size())))
    averages(rank)
    dist.barrier()
    set_timeout(TIMEOUT)
    return store("talk")


def set_timeout(seconds):
    """Of the default group; torch < 2.14 cannot under TORCH_DISTRIBUTED_DEBUG=DETAIL."""
    backend_of().set_timeout(timedelta(seconds=seconds))


def average(rank, **kwargs):
    return bf.neighbor_allreduce(value_of(rank, (1000,)).cuda(), **kwargs)


def averages(rank):
    assert_same(average(rank).cpu(), dense(bf.get_topology(), rank, (1000,)))
    if own_records():
        until(lambda: own_records()[-1]["state"] != "enqueued")
        assert own_records()[-1]["state"] == "completed"


def own_records():
    return bf.ops.device_records()


def until(condition):
    """Waits for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
