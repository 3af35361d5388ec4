"""Standard collectives over shared memory where ranks disagree, die, do not come, or first meet."""

import os
import resource
import signal
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import attempt, raises, start, store

import bluefog_pg as bf
from bluefog_pg import MismatchError, NeighborTimeoutError, PeerLostError
from bluefog_pg.group import backend_of

SUM, AVG = dist.ReduceOp.SUM, dist.ReduceOp.AVG
TIMEOUT = 1.5  # s, in the test that runs into it


def disagreeing(rank, n):
    start()
    dist.barrier()
    big = torch.ones(100_000 if rank else 3)
    words = "all_reduce #2", "rank 0 has 1 tensor: float32[3] (sum), rank"
    raises(MismatchError, *words, call=lambda: dist.all_reduce(big))
    op = AVG if rank else SUM
    raises(MismatchError, "(sum)", "(mean)", call=lambda: dist.all_reduce(torch.ones(3), op))
    raises(MismatchError, "broadcast", call=lambda: dist.broadcast(big, src=rank))
    error = attempt(lambda: dist.barrier() if rank else dist.all_reduce(big))
    assert isinstance(error, MismatchError) and "different operations" in str(error)
    # The shape does not matter, only the number of elements; nor does the form.
    x = torch.ones(6 if rank else (2, 3))
    dist.all_reduce(x)
    assert (x == n).all()
    whole, out = torch.ones(3 * n), torch.empty(3)
    if rank:
        dist.reduce_scatter_tensor(out, whole)
    else:
        dist.reduce_scatter(out, list(whole.chunk(n)))
    assert (out == n).all()


def test_disagreement():
    run_ranks(disagreeing, 3)


def one_does_not_come(rank, n, size):
    start()
    talk = store("talk")

    def all_reduce():
        dist.all_reduce(x := torch.ones(size))
        assert (x == n).all()

    dist.barrier()
    dist.group.WORLD.set_timeout(timedelta(seconds=TIMEOUT))
    if rank == 2:
        talk.wait(["over/0", "over/1"])
        raises(NeighborTimeoutError, "gave up on it", call=all_reduce)
    else:
        began = time.monotonic()
        words = "all_reduce #2", "rank 2 did not start it", f"(the timeout is {TIMEOUT} s)"
        raises(NeighborTimeoutError, *words, call=all_reduce)
        assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 1.5
        talk.set(f"over/{rank}", "")
    dist.group.WORLD.set_timeout(timedelta(seconds=60))
    talk.set(f"again/{rank}", "")
    talk.wait([f"again/{j}" for j in range(n)])
    all_reduce()


@pytest.mark.parametrize("size", [10, 100_000])
def test_one_rank_does_not_come(size):
    run_ranks(one_does_not_come, 3, size)


def groups_meet_when_made(rank, n):
    """An async collective does not wait for others, not even the first one of a group."""
    start()
    for group in (None, dist.new_group()):
        x, y = torch.ones(5), torch.zeros(1)
        if rank == 0:
            work = dist.all_reduce(x, async_op=True, group=group)
            dist.send(y + 1, 1, group=group)
            work.wait()
        else:
            dist.recv(y, 0, group=group)
            assert y == 1
            dist.all_reduce(x, group=group)
        assert (x == 2).all()
        assert backend_of(group).host_collectives == 1


def test_first_collective_does_not_block():
    run_ranks(groups_meet_when_made, 2)


def one_makes_no_group(rank, n):
    start()
    dist.barrier()
    talk = store("talk")
    if rank == 2:
        talk.wait(["over/0", "over/1"])
        return
    began = time.monotonic()
    error = attempt(dist.new_group, timeout=timedelta(seconds=TIMEOUT))
    assert isinstance(error, RuntimeError), error
    assert TIMEOUT * 0.9 <= time.monotonic() - began < TIMEOUT + 1.5
    talk.set(f"over/{rank}", "")


def test_one_rank_makes_no_group():
    run_ranks(one_makes_no_group, 3)


def killed(rank, n):
    start(timeout=30)
    x = torch.ones(3_000_000)
    dist.all_reduce(x)
    works = [dist.all_reduce(x, async_op=True) for _ in range(6)]
    if rank == 1:
        works[1].wait()
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.monotonic()
    errors = [error for work in works if (error := attempt(work.wait))]
    assert errors and isinstance(errors[-1], PeerLostError), errors
    assert "rank 1 was lost" in str(errors[-1])
    raises(PeerLostError, "rank 1 was lost", call=lambda: dist.barrier())
    assert time.monotonic() - began < 10


def test_a_rank_is_killed():
    run_ranks(killed, 3, dies=(1,))


def shm_where_it_is_not(rank, n):
    """transport="shm" on two hosts is an error of neighbor operations; collectives go to Gloo."""
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    start("shm")
    dist.all_reduce(x := torch.ones(5))
    assert (x == n).all() and backend_of().host_collectives == 0
    bf.set_topology("ring")
    raises(ValueError, 'transport "shm" was asked for', call=lambda: bf.neighbor_allreduce(x))
    dist.all_reduce(x)
    assert (x == n * n).all()


def test_shm_on_two_hosts():
    run_ranks(shm_where_it_is_not, 2)
