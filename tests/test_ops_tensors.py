"""The tensors of neighbor_allreduce: layouts, lists, outputs, autograd, asynchronous handles."""

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import (
    TRANSPORTS,
    assert_same,
    dense,
    exact_weights,
    raises,
    start,
    store,
    value_of,
)

import bluefog_pg as bf
from bluefog_pg.ops import bytes_sent

# Each gives a tensor of the same values with other strides, storage or flags.
STRIDES = [
    lambda x: x,
    lambda x: x.mT.contiguous().mT,
    lambda x: x.repeat_interleave(2, -1)[..., ::2],
    lambda x: torch.cat([x, x, x])[len(x) : 2 * len(x)],
    lambda x: x.contiguous(memory_format=torch.channels_last),
]
FLAGS = [
    lambda x: torch.complex(x, -x).conj().imag,  # a view that is negated when it is read
    torch.nn.Parameter,
    lambda x: x.clone().requires_grad_() * 1,
]


def all_layouts(rank, n, transport, async_op):
    start(transport)
    bf.set_topology(exact_weights(bf.ring(n)))
    shape = (2, 3, 4, 5)
    expected = dense(bf.get_topology(), rank, shape)

    def average(x, **kwargs):
        result = bf.neighbor_allreduce(x, async_op=async_op, **kwargs)
        if not async_op:
            return result
        result.wait()
        return result.result()[0] if isinstance(x, torch.Tensor) else result.result()

    for make in STRIDES + FLAGS:
        x = make(value_of(rank, shape))
        y = average(x)
        assert_same(y, expected)
        assert not y.requires_grad and y.is_leaf
        assert_same(x.detach(), value_of(rank, shape))  # the input is as it was
        average(x.detach(), out=x.detach())
        assert_same(x.detach(), expected)  # in place, whatever the strides
    parameter = torch.nn.Parameter(value_of(rank, shape))
    average(parameter, out=parameter)
    assert_same(parameter.detach(), expected)
    assert parameter.requires_grad and parameter.is_leaf
    for make in STRIDES:
        out = make(torch.full(shape, float("nan")))
        version = out._version
        assert average(value_of(rank, shape), out=out) is out or async_op
        assert_same(out, expected)
        assert out._version > version  # autograd knows that it was written
    with torch.inference_mode():
        for make in STRIDES:
            assert_same(average(make(value_of(rank, shape))), expected)
    row = value_of(rank, (5,)).expand(4, 5)
    assert_same(average(row), dense(bf.get_topology(), rank, (5,)).expand(4, 5))

    shapes = [(), (70000, 3), (0, 2), (5,), (2, 2)]
    dtypes = [torch.float64, torch.float16, torch.float32, torch.bfloat16, torch.float64]
    pairs = list(zip(shapes, dtypes, strict=True))
    xs = [value_of(rank, *pair) for pair in pairs]
    before = bytes_sent()
    for y, pair in zip(average(xs), pairs, strict=True):
        assert_same(y, dense(bf.get_topology(), rank, *pair))
    padding = 64 * len(xs)  # tensors start at multiples of 64 bytes
    assert 0 <= bytes_sent() - before - 2 * sum(x.nbytes for x in xs) < 2 * padding
    average(xs, out=xs)
    for x, pair in zip(xs, pairs, strict=True):
        assert_same(x, dense(bf.get_topology(), rank, *pair))
    assert average([]) == []


@pytest.mark.parametrize("async_op", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_layouts_and_lists(transport, async_op):
    run_ranks(all_layouts, 3, transport, async_op)


def asynchronous(rank, n, transport):
    start(transport)
    bf.set_topology(exact_weights(bf.ring(n)))
    graph = bf.get_topology()
    works = []
    for i in range(60):
        x = value_of(rank, (1 + i * 1000,))
        works.append(bf.neighbor_allreduce(x, async_op=True))
        del x  # the operation keeps it
        works.append(bf.neighbor_allgather(value_of(rank, (i,), torch.int16), async_op=True))
    assert_same(bf.neighbor_allreduce(value_of(rank, (8,))), dense(graph, rank, (8,)))
    assert all(work.is_completed() for work in works)  # first in, first out
    for i, work in enumerate(works):
        assert work.wait()
        (y,) = work.result()
        (same,) = work.get_future().wait()
        assert same.data_ptr() == y.data_ptr()
        if i % 2 == 0:
            assert_same(y, dense(graph, rank, (1 + i // 2 * 1000,)))
    # Without the caller holding the Work either.
    out = torch.empty(100_000)
    future = bf.neighbor_allreduce(value_of(rank, (100_000,)), out=out, async_op=True).get_future()
    (doubled,) = future.then(lambda done: [2 * done.value()[0]]).wait()
    assert_same(out, dense(graph, rank, (100_000,)))
    assert_same(doubled, 2 * out)
    # A callback may start the next operation, as DDP's communication hooks do.
    first = bf.neighbor_allreduce(out, async_op=True)
    second = first.get_future().then(
        lambda done: bf.neighbor_allreduce(done.value(), async_op=True).get_future()
    )
    (twice,) = second.wait().wait()
    assert_same(twice, bf.neighbor_allreduce(bf.neighbor_allreduce(out)))
    once = bf.neighbor_allreduce(out)
    # It may wait for it as well. Rank 0's is surely called by another thread.
    if rank == 0:
        work = bf.neighbor_allreduce(out, async_op=True)
        nested = work.get_future().then(lambda _: bf.neighbor_allreduce(out))
        store("talk").set("callback", "")
        assert_same(nested.wait(), once)
    else:
        store("talk").wait(["callback"])
        bf.neighbor_allreduce(out)
        assert_same(bf.neighbor_allreduce(out), once)
    assert_same(bf.neighbor_allreduce(value_of(rank, (8,))), dense(graph, rank, (8,)))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_async(transport):
    run_ranks(asynchronous, 3, transport)


def profiled(rank, n, transport):
    start(transport)
    bf.set_topology(bf.ring(n))
    x = value_of(rank, (1000,))
    bf.neighbor_allreduce(x)
    with torch.profiler.profile() as profile:
        bf.neighbor_allreduce([x, x])
        bf.neighbor_allreduce(x, async_op=True).wait()
        bf.neighbor_allgather(x)
    counts = {event.key: event.count for event in profile.key_averages()}
    return counts.get("bluefog:neighbor_allreduce"), counts.get("bluefog:neighbor_allgather")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_profiler_titles(transport):
    assert run_ranks(profiled, 2, transport) == [(2, 1)] * 2


def memory_of_the_backend(rank, n, transport):
    """Neighbours read it in place where they can; nobody sees a difference but in time."""
    start(transport)
    graph = exact_weights(bf.ring(n))
    bf.set_topology(graph)
    for shape in [(0,), (3, 4), (32_768,), (32_769,), (300, 1000)]:  # about 128 KiB, and above
        x = bf.empty(*shape)
        assert x.shape == shape and x.dtype == torch.float32
        expected, gathered = dense(graph, rank, shape), None
        for _ in range(3):  # overwritten at once, as a training step does
            x.copy_(value_of(rank, shape))
            y = bf.neighbor_allreduce(x)
            gathered = bf.neighbor_allgather(x)
            x.fill_(torch.nan)
            assert_same(y, expected)
            peers = sorted({(rank - 1) % n, (rank + 1) % n})
            assert_same(gathered, torch.cat([value_of(peer, shape) for peer in peers]))
        x.copy_(value_of(rank, shape))
        works = [bf.neighbor_allreduce(x, async_op=True) for _ in range(4)]
        for work in works:
            work.wait()
            assert_same(work.get_future().value()[0], expected)
        bf.neighbor_allreduce(x, out=x)  # in place: not read there by others
        assert_same(x, expected)
    kept = bf.empty([1 << 20], dtype=torch.float64).fill_(rank)
    dist.destroy_process_group()
    assert (kept.sum() == rank << 20) and (kept.add_(1) == rank + 1).all()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_memory_of_the_backend(transport):
    run_ranks(memory_of_the_backend, 3, transport)


def test_without_memory_of_the_backend():
    run_ranks(memory_of_the_backend, 2, "shm", env={"BLUEFOG_SHM_HEAP_BYTES": "0"})


def gathers_into_memory_that_is_given(rank, n, transport):
    start(transport)
    bf.set_topology(bf.ring(n))
    peers = sorted({(rank - 1) % n, (rank + 1) % n})
    for rows in (2, 100_000):
        x = value_of(rank, (rows + rank, 3))
        expected = torch.cat([value_of(peer, (rows + peer, 3)) for peer in peers])
        out = torch.empty(expected.shape)
        assert bf.neighbor_allgather(x, out=out).data_ptr() == out.data_ptr()
        assert_same(out, expected)
        out.fill_(7)
        work = bf.neighbor_allgather(x, out=out, async_op=True)
        work.wait()
        assert work.get_future().value()[0].data_ptr() == out.data_ptr()
        assert_same(out, expected)
        # A rank whose memory does not fit says so, and its neighbours get what they need.
        wrong = torch.full((1, 3), 7.0)
        if rank == 1:
            words = "[1, 3]", f"[{len(expected)}, 3]"
            raises(ValueError, *words, call=lambda: bf.neighbor_allgather(x, out=wrong))  # noqa: B023
            assert (wrong == 7).all()
        else:
            assert_same(bf.neighbor_allgather(x, out=out), expected)
        assert_same(bf.neighbor_allgather(x, out=out), expected)
    long = torch.empty(6, 6)
    for bad, word in [
        (long.double(), "float64"),
        (long.t()[:, :3], "not contiguous"),
        (x[: len(expected)], "shares memory"),
    ]:
        raises(ValueError, word, call=lambda: bf.neighbor_allgather(x, out=bad))  # noqa: B023
    assert_same(bf.neighbor_allgather(x), expected)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gathers_into_memory_that_is_given(transport):
    run_ranks(gathers_into_memory_that_is_given, 4, transport)
