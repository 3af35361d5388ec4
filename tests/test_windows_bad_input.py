"""One-sided windows: what cannot work is refused, on all ranks alike, and leaves nothing behind."""

import gc
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import raises, start, store

import bluefog_pg as bf

TRANSPORTS = pytest.mark.parametrize("transport", ["auto", "tcp"])


def making(rank, nproc, transport):
    start(transport)
    x = torch.zeros(3)
    raises(ValueError, "no topology is set", call=lambda: bf.win_create(x, "x"))
    bf.set_topology(bf.ring(nproc))
    bf.win_create(x, "x")
    raises(ValueError, "window 'x' already", call=lambda: bf.win_create(x, "x"))
    raises(
        ValueError,
        "while windows are open: free ['x'] first",
        call=lambda: bf.set_topology(bf.ring(nproc)),
    )
    bf.win_free("x")
    dtype = torch.float64 if rank == 2 else torch.float32
    raises(
        bf.MismatchError,
        "rank 0 has dtype 'torch.float32', rank 2 has dtype 'torch.float64'",
        call=lambda: bf.win_create(torch.zeros(3, dtype=dtype), "x"),
    )
    raises(
        bf.MismatchError,
        "rank 0 has shape [3], rank 1 has shape [4]",
        call=lambda: bf.win_create(torch.zeros(3 + (rank == 1)), "x"),
    )
    raises(
        bf.MismatchError,
        "rank 0 has name 'x', rank 1 has name 'y'",
        call=lambda: bf.win_create(x, "xyx"[rank]),
    )
    wrong = {
        torch.zeros(3, 4).t(): (ValueError, "[4, 3] with strides [1, 4]; pass tensor.contiguous()"),
        torch.zeros(3, dtype=torch.bool): (TypeError, "cannot hold bool; it can hold float16"),
        torch.zeros(3, device="meta"): (ValueError, "dense tensor on the CPU or a GPU, got"),
    }
    for tensor, (kind, text) in wrong.items():
        given = tensor if rank == 1 else x
        if rank == 1:
            raises(kind, text, call=lambda given=given: bf.win_create(given, "x"))
        else:
            words = "rank 1 cannot make window 'x': ", text
            raises(bf.MismatchError, *words, call=lambda given=given: bf.win_create(given, "x"))
    assert bf.get_current_created_window_names() == []
    bf.win_create(x, "x")  # all of that has left the group well
    bf.win_free()


@TRANSPORTS
def test_making_a_window(transport):
    run_ranks(making, 3, transport)


def using(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    x = torch.zeros(3)
    window = bf.Window(x, "x")
    far = (rank + 2) % nproc
    raises(ValueError, "no window 'y'; open are ['x']", call=lambda: bf.win_put(x, "y"))
    raises(
        ValueError,
        f"put on rank {rank} in window 'x': rank {far} is none of its out-neighbours",
        call=lambda: window.put(dst_weights=[far]),
    )
    raises(
        ValueError,
        f"rank {far} is none of its in-neighbours",
        call=lambda: window.update(self_weight=1, neighbor_weights={far: 1.0}),
    )
    raises(
        ValueError,
        "give both self_weight and neighbor_weights",
        call=lambda: window.update(self_weight=1),
    )
    raises(ValueError, "a weight is nan", call=lambda: window.put(self_weight=float("nan")))
    raises(TypeError, "has float32, got a tensor of float64", call=lambda: window.put(x.double()))
    raises(ValueError, "has the shape [3], got", call=lambda: window.put(torch.zeros(4)))
    raises(
        ValueError,
        "pass tensor.contiguous()",
        call=lambda: window.accumulate(torch.zeros(6)[::2]),
    )
    raises(ValueError, f"rank {nproc} is no neighbour", call=lambda: window.value_of(nproc))
    with window.mutex():
        raises(
            ValueError,
            "already: inside `with win_mutex` leave out require_mutex",
            call=lambda: window.put(require_mutex=True),
        )
        window.put()
    dist.barrier()
    window.free()
    for call in (window.put, window.update, window.free, window.versions, lambda: window.p):
        raises(bf.AbortedError, "window 'x'", "has been freed", call=call)
    raises(ValueError, "no window 'x'; open are []", call=lambda: bf.win_free("x"))
    hidden = bf.Window(x, "h", readable=False)
    raises(ValueError, "readable=False", call=hidden.get)
    hidden.free()


@TRANSPORTS
def test_using_a_window(transport):
    run_ranks(using, 4, transport)


def freeing(rank, nproc, transport):
    """Rank 1 reads on while rank 0 waits to free, and is refused once rank 0 has closed."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    talk = store("talk")
    window = bf.Window(torch.full((1000,), float(rank)), "x")
    if rank == 0:
        talk.set("freeing", "")
        window.free()
    else:
        talk.wait(["freeing"])
        for _ in range(100):
            window.get()
            assert window.update(self_weight=0, neighbor_weights={0: 1.0}, clone=True).sum() == 0
        window.free()
    window = bf.Window(torch.zeros(1000), "x")
    if rank == 0:
        window.close()
        talk.set("closed", "")
        talk.wait(["refused"])
    else:
        talk.wait(["closed"])
        comes_to(True, lambda: window.is_lost(0))
        raises(bf.PeerLostError, "rank 0 has freed the window", call=window.get)
        raises(bf.PeerLostError, "rank 0 has freed the window", call=window.put)
        window.update()
        window.free()
        talk.set("refused", "")


@TRANSPORTS
def test_free_while_a_peer_reads(transport):
    run_ranks(freeing, 2, transport)


def late(rank, nproc, transport):
    start(transport, timeout=2.0)
    bf.set_topology(bf.ring(nproc))
    talk = store("talk")
    window = bf.Window(torch.zeros(3), "x")
    if rank == 0:
        with window.mutex():
            talk.set("held", "")
            talk.wait(["tried"])
        talk.wait(["over"])
    else:
        talk.wait(["held"])
        words = "rank 1 waited 2 s for the mutex of rank 0's mailbox at rank 1", "rank 0 holds"
        raises(bf.NeighborTimeoutError, *words, call=lambda: window.update(require_mutex=True))
        window.update()
        talk.set("tried", "")
        raises(
            bf.NeighborTimeoutError, "waited 2 s for rank 0 to free window 'x'", call=window.free
        )
        talk.set("over", "")
    window.close()


@TRANSPORTS
def test_deadlines(transport):
    run_ranks(late, 2, transport)


def destroying(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    window = bf.win_create(torch.zeros(3), "x")
    bf.win_wait(bf.win_put_nonblocking(torch.zeros(3), "x"))
    talk = store("talk")
    dist.barrier()
    if rank == 0:
        dist.destroy_process_group()
        talk.set("destroyed", "")
        raises(bf.AbortedError, "its process group destroyed", call=window.put)
        raises(ValueError, 'init_process_group("bluefog")', call=lambda: bf.win_put(None, "x"))
        assert mapped() == 0
        comes_to(0, window_threads)
        comes_to(0, message_threads)
    else:
        talk.wait(["destroyed"])
        comes_to(True, lambda: window.is_lost(0))
        raises(bf.PeerLostError, "put on rank 1 in window 'x' failed: rank 0", call=window.put)
        bf.win_free()  # rank 0 is not waited for
        dist.destroy_process_group()
    assert "bluefog" not in " ".join(os.listdir("/dev/shm"))


def mapped():
    return Path("/proc/self/maps").read_text().count("bluefog window")


@TRANSPORTS
def test_destroying_the_group_with_windows_open(transport):
    run_ranks(destroying, 2, transport)


def leaks(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))

    def use():
        with bf.Window(torch.zeros(100_000), "x") as window:
            comes_to(0, window_threads)
            window.put(async_op=True).wait()
            comes_to(1, window_threads)
            assert mapped() == (nproc if transport == "auto" else 0)
            assert message_threads() == (transport == "tcp")
            window.get()
            dist.barrier()

    use()
    before = open_files()
    for _ in range(10):
        use()
    comes_to(0, window_threads)
    assert mapped() == 0
    comes_to(Counter(), lambda: open_files() - before)  # Gloo may close some of its own


def open_files():
    """{kind: how many are open}"""
    gc.collect()
    kinds = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it has just gone
            kinds[os.readlink(path).partition(":")[0]] += 1
    return kinds


def comes_to(expected, count):
    """A thread that was joined may stay in the kernel's list for a moment, and get a name late."""
    deadline = time.monotonic() + 30
    while count() != expected:
        assert time.monotonic() < deadline, (count(), expected)


def window_threads():
    return threads("bluefog windows")


def message_threads():
    return threads("bluefog message")


def threads(name):
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has just gone
            names.append(path.read_text())
    return names.count(f"{name}\n")


@TRANSPORTS
def test_nothing_leaks(transport):
    run_ranks(leaks, 3, transport)


def in_a_child(rank, nproc, transport):
    """A forked child can do nothing with a window, and nothing to it."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    window = bf.Window(torch.full((3,), float(rank)), "x")
    window.put(async_op=True).wait()
    child = os.fork()
    if child == 0:
        try:
            raises(ValueError, "which was forked from it", call=window.put)
            window.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    dist.barrier()
    window.put()
    window.free()


@TRANSPORTS
def test_forked_children(transport):
    run_ranks(in_a_child, 2, transport)
