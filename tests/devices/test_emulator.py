"""The emulated GPU finds what a real one would: too early, overwritten, captured, unknown."""

import ctypes
import re
import threading

import pytest
import torch
import torch.distributed as dist
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import attempt

pytestmark = needs_cuda_module
INVALID_HANDLE = 400  # cudaErrorInvalidResourceHandle
SLOW = 200_000_000  # cycles that a kernel takes: 0.2 s


def streams(rank, n):
    x, value = torch.zeros(1000, device="cuda"), torch.ones(1000, device="cuda")
    side, other = torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    for waits in (False, True):
        x.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(SLOW)
            x.copy_(value)
        if waits:
            other.wait_stream(side)
        with torch.cuda.stream(other):
            seen = x + 0
        torch.cuda.synchronize()
        assert seen.tolist() == [float(waits)] * 1000, waits
        assert x.tolist() == [1.0] * 1000
    # By events, and of the host.
    ended = torch.cuda.Event()
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLOW)
        x.fill_(3)
        ended.record()
    early = ended.query(), side.query()
    ended.synchronize()
    assert early == (False, False) and ended.query() and side.query()
    assert x.tolist() == [3.0] * 1000


def memory(rank, n):
    """What another stream reads is overwritten, unless the allocator was told."""
    side, wrong = torch.cuda.Stream(), {}
    for told in (False, True):
        x = torch.full((1 << 20,), 1.0, device="cuda")
        torch.cuda.synchronize()
        address = x.data_ptr()
        with torch.cuda.stream(side):
            torch.cuda._sleep(SLOW)
            seen = x + 0
        if told:
            x.record_stream(side)
        del x
        y = torch.full((1 << 20,), 2.0, device="cuda")
        assert (y.data_ptr() == address) == (not told)
        torch.cuda.synchronize()
        wrong[told] = int((seen != 1).sum())
        del y, seen
    assert wrong == {False: 1 << 20, True: 0}
    # Fresh memory is not zero, which would hide what nobody has written.
    assert not (torch.empty(1 << 22, device="cuda") == 0).all()


def devices(rank, n):
    """Streams of different devices do not wait for each other either."""
    x, y = (torch.zeros(1000, device=f"cuda:{i}") for i in range(2))
    torch.cuda.synchronize(0)
    torch.cuda.synchronize(1)
    torch.cuda._sleep(SLOW)  # on 0
    y.add_(1)
    assert not torch.cuda.current_stream(0).query()
    torch.cuda.synchronize(1)
    assert not torch.cuda.current_stream(0).query()
    assert (y + 1).device == y.device and y.tolist() == [1.0] * 1000
    with torch.cuda.device(1):
        assert torch.empty(1, device="cuda").device == y.device
    # The runtime refuses what needs a device guard.
    event = torch.cuda.Event()
    event.record()
    runtime, stream = ctypes.CDLL(None), torch.cuda.Stream(1)
    handles = ctypes.c_void_p(event.cuda_event), ctypes.c_void_p(stream.cuda_stream)
    assert runtime.cudaEventRecord(*handles) == INVALID_HANDLE
    assert x.tolist() == [0.0] * 1000


def graphs(rank, n):
    x = torch.zeros(1000, device="cuda")
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        y = x + 1
        x.add_(5)
    torch.cuda.synchronize()
    assert x.tolist() == [0.0] * 1000  # nothing was run
    for turn in range(3):
        graph.replay()
        assert y.tolist() == [5.0 * turn + 1] * 1000
    # A wait for what is not in the graph, or by the host, cannot be in it.
    assert "captur" in captured("thread_local", lambda: x.tolist())
    assert "captur" in captured("thread_local", torch.cuda.synchronize)
    assert captured("thread_local", lambda: x.add_(1)) == ""


def captured(mode, call):
    """The error of a capture during which call() is made."""

    def capture():
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode=mode):
            torch.ones(1, device="cuda").add_(1)
            call()

    error = attempt(capture)
    torch.cuda.synchronize()
    return "" if error is None else str(error)


def threads_in_captures(rank, n):
    event = torch.cuda.Event()
    event.record()
    torch.cuda.synchronize()

    def query():
        thread = threading.Thread(target=attempt, args=(event.query,))
        thread.start()
        thread.join()

    assert captured("thread_local", query) == ""
    assert "captur" in captured("global", query)


def unknown(rank, n):
    dist.init_process_group("nccl")
    error = attempt(dist.all_reduce, torch.ones(3, device="cuda"))  # whose kernel looks for NaN
    assert "device function" in str(error), repr(error)


def shared(rank, n):
    torch.cuda.set_device(0)
    error = attempt(dist.init_process_group, "nccl")  # the old engine connects later
    error = error or attempt(dist.all_reduce, torch.ones(3, device="cuda"))
    assert "invalid usage" in str(error), repr(error)


@pytest.mark.parametrize("check", [streams, memory, devices, graphs, threads_in_captures])
def test_finds(check):
    run_ranks(check, 1, gpus=2)


def test_refuses_ranks_that_share_a_gpu():
    _, printed = run_ranks(shared, 2, gpus=1)
    assert "Duplicate GPU detected : rank 0 and rank 1" in printed, printed


def test_names_an_unknown_kernel():
    """One that is not behind an operator of torch's."""
    env = {"TORCH_NCCL_NAN_CHECK": "1", "TORCH_DIST_USE_NCCL2": "0"}
    _, printed = run_ranks(unknown, 1, env=env)
    assert re.search("does not know the kernel _Z.*[nN]a[nN]", printed), printed
