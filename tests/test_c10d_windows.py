"""torch.distributed's own windows on a bluefog group, where torch has them."""

import os
import signal

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import assert_same, raises, start, store, value_of

import bluefog_pg as bf

pytestmark = pytest.mark.skipif(
    not hasattr(dist.distributed_c10d, "_new_window"), reason="torch before 2.15 has no windows"
)


def new_window(tensor=None):
    return dist.distributed_c10d._new_window(tensor)


def neighbours(rank, nproc):
    """Each rank puts into the next one, and signals; twice, and through two views of a tensor."""
    start()
    assert dist.distributed_c10d._supports_window()
    whole = torch.zeros(30)
    x = whole[10:20].view(2, 5)
    window = new_window(x)
    assert x.data_ptr() == whole.data_ptr() + 40, "views stay views"
    right, left = (rank + 1) % nproc, (rank - 1) % nproc
    for turn in range(2):
        y = value_of(rank, (3,)) + turn
        window.put(y, right, 2 + turn, False)
        window.signal(right, False)
        window.wait_signal(left, False)
        assert_same(whole[12 + turn : 15 + turn], value_of(left, (3,)) + turn)
        window.signal(left, True).wait()
        window.wait_signal(right, True).wait()
    seen = window.map_remote_tensor(right)
    assert seen.shape == (2, 5)
    assert_same(seen.flatten()[3:6], value_of(rank, (3,)) + 1)
    x[0, 0] = 7.0
    dist.barrier()
    assert seen[0, 0] == 7.0
    assert window.get_attr(right).access_type.name == "UNIFIED"
    dist.barrier()
    window.tensor_deregister()
    del window
    assert seen[0, 0] == 7.0 and x[0, 0] == 7.0, "memory lives as long as who uses it"


def test_puts_and_signals():
    run_ranks(neighbours, 4)


def bad_input(rank, nproc):
    start(timeout=1.0)
    window = new_window()
    raises(ValueError, "has no tensor", call=lambda: window.put(torch.zeros(1), 0, 0, False))
    x = torch.zeros(4 + rank, dtype=torch.float64)
    window.tensor_register(x)
    raises(ValueError, "has a tensor already", call=lambda: window.tensor_register(x))
    raises(TypeError, "has float64, got", call=lambda: window.put(torch.zeros(1), 1, 0, False))
    one = torch.ones(1, dtype=torch.float64)
    for offset in (-1, 5, 2**62):
        words = "rank 1's window has 5 elements, got 1 at", str(offset)
        raises(ValueError, *words, call=lambda at=offset: window.put(one, 1, at, False))
    window.put(one, 1, 4, False)
    raises(ValueError, "ranks 0 to 1, got 2", call=lambda: window.signal(2, False))
    assert window.map_remote_tensor(1 - rank).shape == (5 - rank,)
    words = "waited 1 s for signal 1 of rank", "which has sent 0"
    raises(bf.NeighborTimeoutError, *words, call=lambda: window.wait_signal(1 - rank, False))
    dist.barrier()
    window.signal(1 - rank, False)
    window.wait_signal(1 - rank, False)  # the wait that failed has taken none
    dist.barrier()
    window.tensor_deregister()
    raises(ValueError, "has no tensor", call=window.tensor_deregister)
    assert x.tolist() == [0.0] * 4 + [1.0] * rank


def test_bad_input():
    run_ranks(bad_input, 2)


def deaths(rank, nproc):
    start()
    talk = store("deaths")
    window = new_window(torch.zeros(3))
    if rank == 1:
        talk.wait(["waiting"])
        os.kill(os.getpid(), signal.SIGKILL)
    talk.set("waiting", "")
    raises(bf.PeerLostError, "rank 1 was lost", call=lambda: window.wait_signal(1, False))
    raises(bf.PeerLostError, "rank 1", call=lambda: window.put(torch.ones(1), 1, 0, False))


def test_the_dead_are_named():
    run_ranks(deaths, 2, dies=[1])


def far(rank, nproc):
    start("gloo")
    assert not dist.distributed_c10d._supports_window()
    dist.barrier()


def test_between_hosts_there_are_none():
    run_ranks(far, 2)
