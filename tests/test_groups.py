"""Process groups of backend "bluefog": making them in every way c10d has, and ending them."""

import copy
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import (
    TRANSPORTS,
    assert_same,
    attempt,
    averages,
    dense,
    raises,
    start,
    store,
    value_of,
)
from torch.distributed.device_mesh import init_device_mesh

import bluefog_pg as bf
from bluefog_pg import AbortedError, PeerLostError
from bluefog_pg.group import backend_of

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def subgroups(rank, n):
    start()
    averages(rank, n)
    odd = dist.new_group([5, 1, 3], backend="bluefog")
    if rank in (1, 3, 5):
        averages((1, 3, 5).index(rank), 3, odd)  # c10d sorts the ranks
        assert dist.get_backend(odd) == "bluefog"
        assert bf.get_topology(odd).number_of_nodes() == 3
    assert bf.get_topology().number_of_nodes() == n  # each group has its own
    thirds, _ = dist.new_subgroups(2)
    averages(rank % 2, 2, thirds)
    halves, _ = dist.new_subgroups_by_enumeration([[0, 2, 4], [5, 3, 1]])
    averages(rank // 2, 3, halves)
    one = dist.new_group([2])
    if rank == 2:
        averages(0, 1, one)
    # Two groups in turn, with operations of both in flight, in another order on each rank.
    bf.set_topology("ring", group=halves)
    for i in range(10):
        x, y = value_of(rank, (i * 997,)), value_of(rank // 2, (i * 31,), torch.float64)
        works = [None, None]
        for at in (0, 1) if (rank + i) % 2 else (1, 0):
            group, tensor = [(None, x), (halves, y)][at]
            works[at] = bf.neighbor_allreduce(tensor, group=group, async_op=True)
        for work in works:
            work.wait()
        (x,), (y,) = [work.get_future().value() for work in works]
        assert_same(x, dense(bf.get_topology(), rank, x.shape))
        torch.testing.assert_close(y, dense(bf.ring(3), rank // 2, y.shape, y.dtype))


def test_subgroups():
    run_ranks(subgroups, 6)


def meshes(rank, n):
    start()
    line = init_device_mesh("cpu", (n,), mesh_dim_names=("all",))
    averages(rank, n, line.get_group())
    mesh = init_device_mesh("cpu", (2, n // 2), mesh_dim_names=("replica", "shard"))
    averages(rank // 2, 2, mesh.get_group("replica"))
    averages(rank % 2, 2, mesh.get_group("shard"))
    averages(rank, n, mesh._flatten().get_group())
    assert dist.get_backend(mesh.get_group("shard")) == "bluefog"


@pytest.mark.parametrize("debug", ["OFF", "DETAIL"])
def test_device_mesh(debug):
    run_ranks(meshes, 4, env={"TORCH_DISTRIBUTED_DEBUG": debug})


def splits(rank, n):
    start("gloo")
    world = backend_of()
    part = dist.split_group(split_ranks=[[0, 2], [3, 1]])
    averages(rank // 2 if rank % 2 == 0 else (3, 1).index(rank), 2, part)
    assert world.comm_split_count() == 1
    assert backend_of(part).options.transport == "gloo"  # as its parent
    assert backend_of(part).transport_of(1 - dist.get_rank(part)) == "gloo"
    assert backend_of(part).options is not world.options
    x = torch.full((2,), float(rank))
    dist.all_reduce(x, group=part)
    assert x.tolist() == [2.0 if rank % 2 == 0 else 4.0] * 2
    averages(rank, n)


@pytest.mark.skipif(TORCH < (2, 14), reason="torch < 2.14 splits groups of bound CUDA devices only")
def test_split_group():
    run_ranks(splits, 4)


def device_strings(rank, n):
    for i, backend in enumerate(["bluefog", "cpu:bluefog", "cpu:bluefog,cuda:bluefog"]):
        dist.init_process_group(backend, store=store(str(i)), rank=rank, world_size=n)
        assert "bluefog" in dist.get_backend()
        averages(rank, n)
        x = torch.ones(2)
        dist.all_reduce(x)
        assert x.tolist() == [n, n]
        dist.destroy_process_group()
    mixed = "cpu:gloo,cuda:bluefog"
    dist.init_process_group(mixed, store=store("mixed"), rank=rank, world_size=n)
    averages(rank, n)
    averages(rank, n, dist.new_group(backend="cpu:bluefog"))
    without = dist.new_group(backend="gloo")
    raises(ValueError, "'bluefog'", "Gloo", call=lambda: bf.set_topology("ring", group=without))


def test_device_strings():
    run_ranks(device_strings, 2)


def options(rank, n):
    given = bf.BluefogOptions(transport="gloo", communication_streams=2, high_priority=False)
    for twin in (copy.copy(given), copy.deepcopy(given)):
        assert type(twin) is bf.BluefogOptions and twin.transport == "gloo"
        assert twin.communication_streams == 2 and not twin.high_priority
    dist.init_process_group("bluefog", pg_options=given, timeout=timedelta(seconds=40))
    backend = backend_of()
    assert backend_of(backend) is backend
    assert backend.name() == dist.get_backend() == "bluefog"
    assert backend.options.transport == backend.transport_of(1 - rank) == "gloo"
    assert backend.options._timeout == timedelta(seconds=40)
    assert backend.options.communication_streams == 2 and not backend.options.high_priority
    raises(ValueError, "no peer 2", call=lambda: backend.transport_of(2))
    raises(ValueError, "no peer", call=lambda: backend.transport_of(rank))
    raises(TypeError, "BluefogOptions", "dict", call=lambda: dist.new_group(pg_options={}))
    if TORCH >= (2, 14):
        dist.distributed_c10d.set_timeout(timedelta(seconds=50))
        assert backend.options._timeout == timedelta(seconds=50)
    nccl = getattr(dist, "ProcessGroupNCCL", None)
    if nccl is not None:
        group = dist.new_group(pg_options=nccl.Options())
        assert isinstance(backend_of(group).options.cuda, nccl.Options)
        assert backend_of(group).transport_of(1 - rank) == "shm"
        averages(rank, n, group)
    part = dist.new_group([1, 0], timeout=timedelta(seconds=30))
    assert backend_of(part).options.global_ranks_in_group == [0, 1]
    assert backend_of(part).options._timeout == timedelta(seconds=30)
    pg = dist.group.WORLD
    first = backend._get_sequence_number_for_group() if TORCH >= (2, 14) else None
    dist.all_reduce(torch.ones(1))
    if TORCH >= (2, 14):
        assert pg._get_sequence_number_for_group() == first + 1


def test_options():
    run_ranks(options, 2)


# ---- Ending


def held():
    """What this process holds: threads, open files, and mapped segments."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("memfd:bluefog")
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), maps


def again_and_again(rank, n):
    before = []
    for i in range(5):
        dist.init_process_group("bluefog", store=store(str(i)), rank=rank, world_size=n)
        assert bf.get_topology() is None
        averages(rank, n)
        work = bf.neighbor_allreduce(value_of(rank, (1000,)), async_op=True)
        if i % 2:
            work.wait()  # and otherwise it may still be under way on the other rank
            dist.barrier()
        dist.destroy_process_group()
        error = attempt(work.wait)
        assert error is None or type(error) in (AbortedError, PeerLostError)
        del work, error
        before.append(held())
    assert before[-1] == before[0]  # nothing of the groups between is left
    assert before[0][2] == 0
    raises(ValueError, "init_process_group", call=bf.get_topology)


def test_destroy_and_make_again():
    run_ranks(again_and_again, 3)


def end_while_pending(rank, n, transport, how):
    """Rank 0 waits for rank 1, which never comes: whoever ends the group is not kept waiting."""
    start(transport)
    averages(rank, n)
    talk = store("talk")
    if rank == 1:
        talk.wait(["over"])
        return
    backend = backend_of()
    x = value_of(rank, (1 << 20,))
    works = [bf.neighbor_allreduce(x, async_op=True) for _ in range(3)]
    futures = [work.get_future() for work in works]
    blocked = []
    thread = threading.Thread(target=lambda: blocked.append(attempt(bf.neighbor_allreduce, x)))
    thread.start()  # a blocking call of another thread
    assert not any(work.is_completed() for work in works)
    began = time.monotonic()
    if how == "abort":
        backend.abort()
    elif how == "shutdown":
        backend.shutdown()
    else:
        dist.destroy_process_group()
    for work in works:
        raises(AbortedError, "neighbor_allreduce #", "rank 0", "aborted", call=work.wait)
    for future in futures:
        raises(AbortedError, call=future.wait)
    thread.join()
    assert type(blocked[0]) is AbortedError
    assert time.monotonic() - began < 2, "ending the group took long"
    raises(AbortedError, "rank 0", call=lambda: bf.neighbor_allreduce(x, group=backend))
    talk.set("over", "")


@pytest.mark.parametrize("how", ["abort", "shutdown", "destroy"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_end_with_work_pending(transport, how):
    run_ranks(end_while_pending, 2, transport, how)


def end_while_connecting(rank, n):
    """Nobody else makes a first neighbor operation: ending the group ends the wait for them."""
    start(timeout=30)
    bf.set_topology("ring")
    if rank == 1:
        store("talk").wait(["over"])
        return
    backend, failed = backend_of(), []
    thread = threading.Thread(target=lambda: failed.append(attempt(bf.neighbor_allreduce, ONE)))
    thread.start()
    thread.join(0.3)  # it waits for rank 1; or if it comes late, it finds the group ended
    began = time.monotonic()
    backend.abort()
    thread.join()
    assert time.monotonic() - began < 2
    assert type(failed[0]) is AbortedError
    store("talk").set("over", "")


ONE = torch.ones(1)


def test_end_while_connecting():
    run_ranks(end_while_connecting, 2, env={"BLUEFOG_HOST_COLLECTIVES": "0"})


EXIT = """
import sys, torch, torch.distributed as dist, bluefog_pg as bf
dist.init_process_group("bluefog")
bf.set_topology("ring")
for _ in range(20):
    bf.neighbor_allreduce(torch.ones(9))
if sys.argv[1] == "0":  # the other rank does not take part in these
    for _ in range(50):
        work = bf.neighbor_allreduce(torch.ones(9), async_op=True)
        work.get_future().then(lambda done: done.value()[0] + 1)
"""


def exits(rank, n):
    script = [sys.executable, "-W", "ignore", "-c", EXIT, str(rank)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_exit_without_destroying():
    """Callbacks of pending work must not ask for Python once it is going down."""
    run_ranks(exits, 2)


def forked(rank, n):
    start()
    averages(rank, n)
    errors, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            words = (f"rank {rank}", str(os.getppid()), str(os.getpid()), "forked")
            raises(ValueError, *words, call=lambda: bf.neighbor_allreduce(ONE))
            raises(ValueError, *words, call=lambda: bf.neighbor_allgather(ONE, async_op=True))
            raises(ValueError, *words, call=lambda: bf.set_topology("ring"))
            dist.destroy_process_group()
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    averages(rank, n)  # the parent goes on
    assert os.read(errors, 10_000) == b""
    assert os.waitpid(child, 0) == (child, 0)
    averages(rank, n)


def test_fork():
    run_ranks(forked, 2)


def barriers_and_timeouts(rank, n):
    start()
    dist.monitored_barrier(timeout=timedelta(seconds=30))
    dist.monitored_barrier(wait_all_ranks=True)
    talk = store("talk")
    if rank == 1:
        talk.wait(["over"])
        return
    error = attempt(dist.monitored_barrier, timeout=timedelta(seconds=0.5))
    assert isinstance(error, RuntimeError) and "rank" in str(error).lower()
    talk.set("over", "")


@pytest.mark.skipif(TORCH < (2, 14), reason="torch < 2.14 refuses monitored_barrier by the name")
def test_monitored_barrier():
    run_ranks(barriers_and_timeouts, 2)
