"""neighbor_allreduce and neighbor_allgather: what they return, on every transport.

Inputs are small whole numbers and weights powers of two, so that results are exact in all dtypes
and compared for equality with W @ X, computed densely in float64.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import TRANSPORTS, assert_same, dense, exact_weights, start, value_of

import bluefog_pg as bf
from bluefog_pg._create import make_backend
from bluefog_pg.ops import bytes_sent
from bluefog_pg.topology import names

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SMALL = [(), (0,), (0, 3), (1,), (3, 5, 7)]
MORE_THAN_A_RING = 5 << 20  # bytes; a rank's ring of chunks holds 4 MiB
SMALL_RING = {"BLUEFOG_SHM_CHUNK_BYTES": "4096", "BLUEFOG_SHM_CHUNKS": "2"}


def directed():
    """Rank 0 only sends, 3 only receives, 2 keeps nothing of its own value, 1 exchanges with 2."""
    return nx.DiGraph([(0, 1), (0, 3), (1, 2), (2, 1), (2, 3), (0, 0), (1, 1), (3, 3)])


def static_graphs(n):
    graphs = {name: bf.topology.get(name)(n) for name in names()}
    return [graph for graph in graphs.values() if isinstance(graph, nx.DiGraph)] + [directed()]


def every_dtype_and_shape(rank, n, transport):
    start(transport)
    for graph in map(exact_weights, static_graphs(n)):
        bf.set_topology(graph)
        for dtype in FLOATS:
            for shape in SMALL:
                y = bf.neighbor_allreduce(value_of(rank, shape, dtype))
                assert_same(y, dense(graph, rank, shape, dtype))
    for dtype in FLOATS:
        shape = (MORE_THAN_A_RING // dtype.itemsize + 3,)
        y = bf.neighbor_allreduce(value_of(rank, shape, dtype))
        assert_same(y, dense(graph, rank, shape, dtype))


@pytest.mark.parametrize(("transport", "env"), [("shm", {}), ("shm", SMALL_RING), ("gloo", {})])
def test_equals_the_dense_product(transport, env):
    run_ranks(every_dtype_and_shape, 4, transport, env=env)


def named_topologies(rank, n, transport):
    start(transport)
    for name in names():
        bf.set_topology(name)
        graph = bf.get_topology()
        if isinstance(graph, bf.Schedule):
            continue
        y = bf.neighbor_allreduce(value_of(rank, (50,), torch.float64))
        # n terms, each rounded once when multiplied and once when added.
        bound = 2 * n * torch.finfo(torch.float64).eps * 251
        torch.testing.assert_close(y, dense(graph, rank, (50,), torch.float64), rtol=0, atol=bound)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_topologies_as_they_are(n):
    run_ranks(named_topologies, n, "auto")


def dynamic(rank, n):
    start()
    assert bf.get_topology() is None
    schedule = bf.one_peer_exponential(n)
    bf.set_topology(schedule)
    assert bf.get_topology() is schedule

    def check(y, step):
        assert_same(y, dense(schedule(step), rank, (3,)))

    x = value_of(rank, (3,))
    for step in range(2 * schedule.period):
        check(bf.neighbor_allreduce(x), step)
    check(bf.neighbor_allreduce(x, step=1), 1)
    check(bf.neighbor_allreduce(x, step=schedule.period * 1000 + 2), 2)
    check(bf.neighbor_allreduce(x), 0)  # an explicit step does not advance the counter
    (source,) = set(schedule(1).pred[rank]) - {rank}
    assert_same(bf.neighbor_allgather(x), value_of(source, (3,)))  # an allgather does
    pending = [bf.neighbor_allreduce(x, async_op=True) for _ in range(4)]
    for step, work in enumerate(pending, 2):
        work.wait()
        check(work.result()[0], step)
    bf.set_topology("one_peer_exponential")  # counts from 0 again
    check(bf.neighbor_allreduce(x), 0)
    # Weights of sources alone keep the schedule's neighbours, and advance its step.
    (source,) = set(schedule(1).pred[rank]) - {rank}
    y = bf.neighbor_allreduce(x, self_weight=0.25, src_weights={source: 2.0})
    assert_same(y, 0.25 * x + 2 * value_of(source, (3,)))
    check(bf.neighbor_allreduce(x), 2)
    bf.set_topology(bf.Schedule(lambda t: bf.ring(n, ["left", "right"][t > 99]), n))  # no period
    assert_same(bf.neighbor_allreduce(x, step=99), (x + value_of((rank + 1) % n, (3,))) / 2)
    assert_same(bf.neighbor_allreduce(x, step=100), (x + value_of((rank - 1) % n, (3,))) / 2)


def test_dynamic_topology():
    run_ranks(dynamic, 8)


def weights_of_the_call(rank, n, transport):
    start(transport)
    here, left, right = value_of(rank, (9,)), (rank - 1) % n, (rank + 1) % n
    near = {j: value_of(j, (9,)) for j in range(n)}
    average = partial(bf.neighbor_allreduce, here)

    y = average(self_weight=0.5, src_weights={right: 2.0, left: 0.25}, dst_weights=[left, right])
    assert_same(y, 0.5 * here + 0.25 * near[left] + 2 * near[right])
    y = average(src_weights=[left], dst_weights=(right,))  # uniform: 1/2 each
    assert_same(y, (here + near[left]) / 2)
    y = average(self_weight=4, src_weights=[left], dst_weights=(right,))
    assert_same(y, 4 * here + near[left] / 2)
    y = average(src_weights=[], dst_weights=[])
    assert_same(y, here)
    y = average(self_weight=-0.5, src_weights={}, dst_weights={})
    assert_same(y, -0.5 * here)
    # What the sender says and what the receiver says are multiplied, in float64.
    y = bf.neighbor_allreduce(
        torch.full((2,), float(rank + 1), dtype=torch.float64),
        self_weight=0.0,
        src_weights={left: 1 / 3},
        dst_weights={right: 3.0},
    )
    assert y.tolist() == [(1 / 3 * 3.0) * (left + 1)] * 2
    third = bf.neighbor_allreduce(
        torch.ones((), dtype=torch.float64),
        self_weight=0.0,
        src_weights={left: 1.0},
        dst_weights={right: 1 / 3},
    )
    assert third.item() == 1 / 3
    # Rank 0 sends only, n - 1 receives only.
    y = average(
        self_weight=1.0,
        src_weights={j: 2.0**-j for j in range(n - 1)} if rank == n - 1 else {},
        dst_weights=[] if rank == n - 1 else [n - 1],
    )
    last = here + sum(2.0**-j * near[j] for j in range(n - 1))
    assert_same(y, last if rank == n - 1 else here)

    bf.set_topology(bf.ring(n))
    y = average(self_weight=0.5, src_weights={right: 2.0})  # the left one counts 0
    assert_same(y, 0.5 * here + 2 * near[right])
    y = average(self_weight=0.5, src_weights={left: 2.0})
    assert_same(y, 0.5 * here + 2 * near[left])
    assert_same(average(src_weights=[right]), (here + near[right]) / 2)
    assert_same(average(src_weights=[]), here)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_weights_of_the_call(transport):
    run_ranks(weights_of_the_call, 4, transport)


def layouts(shape):
    """name -> function that gives a tensor other strides, storage or flags, not other values."""

    def spaced(x):
        return x.repeat_interleave(2, -1)[..., ::2]

    def part_of_another(x):
        return (
            torch.stack([x, x + 1, x + 2])[1] - 1
            if x.dim() == 0
            else torch.cat([x, x, x])[len(x) : 2 * len(x)]
        )

    return {
        "contiguous": lambda x: x,
        "transposed": lambda x: x.mT.contiguous().mT,
        "spaced": spaced,
        "sliced": part_of_another,
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "negated view": lambda x: torch.complex(x, -x).conj().imag,
        "parameter": torch.nn.Parameter,
        "requires grad": lambda x: x.clone().requires_grad_() * 1,
    }


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

    makers = layouts(shape)
    for make in makers.values():
        x = make(value_of(rank, shape))
        y = average(x)
        assert_same(y, expected)
        assert not y.requires_grad and y.is_leaf
        assert_same(x.detach(), value_of(rank, shape))  # the input is as it was
        assert_same(average(x.detach(), out=x.detach()), expected)
        assert_same(x.detach(), expected)  # in place, whatever the strides
    for make in list(makers.values())[:5]:
        out = make(torch.full(shape, float("nan")))
        version = out._version
        assert average(value_of(rank, shape), out=out) is out or async_op
        assert_same(out, expected)
        assert out._version > version  # autograd knows that it was written
    with torch.inference_mode():
        for make in list(makers.values())[:5]:
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


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_async(transport):
    run_ranks(asynchronous, 3, transport)


GATHERED = [
    *FLOATS, torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.complex64, torch.complex128, torch.float8_e4m3fn,
]  # fmt: skip


def gather(rank, n, transport):
    start(transport)
    graph = bf.exponential(n)
    bf.set_topology(graph)
    sources = sorted(set(graph.pred[rank]) - {rank})
    for dtype in GATHERED:
        big = (1 << 20, 3) if dtype in (torch.int16, torch.complex64) else (100, 3)
        for shape in [(5,), (2, 3), (4, 0), (0, 3), big]:
            mine = value_of(rank, (shape[0] + rank, *shape[1:]), dtype)
            y = bf.neighbor_allgather(mine)
            parts = [value_of(j, (shape[0] + j, *shape[1:]), dtype) for j in sources]
            assert y.dtype == dtype
            bits = torch.uint8 if dtype.itemsize == 1 else dtype
            assert_same(y.view(bits), torch.cat([part.view(bits) for part in parts]))
    y = bf.neighbor_allgather(torch.tensor(rank))
    assert_same(y, torch.tensor(sources))
    x = torch.complex(value_of(rank, (2, 3)), value_of(rank + 1, (2, 3)))
    assert_same(
        bf.neighbor_allgather(x.conj().mT, src_ranks=[(rank + 1) % n], dst_ranks=[(rank - 1) % n]),
        torch.complex(
            value_of((rank + 1) % n, (2, 3)), value_of((rank + 1) % n + 1, (2, 3))
        ).mH.clone(),
    )
    # In the order given; here every rank turns the ranks' order round.
    others = [j for j in reversed(range(n)) if j != rank]
    y = bf.neighbor_allgather(torch.full((2,), rank), src_ranks=others, dst_ranks=others)
    assert y.tolist() == [j for j in others for _ in range(2)]
    y = bf.neighbor_allgather(torch.ones(3, 2, requires_grad=True), src_ranks=[], dst_ranks=[])
    assert y.shape == (0, 2) and not y.requires_grad


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_allgather(transport):
    run_ranks(gather, 4, transport)


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


def random_averages(rank, n, transport):
    start(transport)
    torch.manual_seed(0)
    results = []
    for trial, dtype in enumerate(FLOATS * 2):
        w = torch.randn(n, n, dtype=torch.float64).tolist()
        xs = torch.randn(n, 300_007, dtype=torch.float64).to(dtype)
        others = [j for j in range(n) if j != rank]
        y = bf.neighbor_allreduce(
            xs[rank],
            self_weight=w[rank][rank],
            src_weights={j: w[rank][j] for j in (others if trial % 2 else others[::-1])},
            dst_weights={j: w[j][j] for j in others},
        )
        row = torch.tensor([w[rank][j] * (w[rank][rank] if j != rank else 1) for j in range(n)])
        torch.testing.assert_close(y.double(), row.double() @ xs.double(), rtol=0.02, atol=0.1)
        results.append(y.view(torch.uint8).numpy().tobytes())
    return results


def test_transports_and_runs_agree_bit_for_bit():
    first = run_ranks(random_averages, 4, "auto")
    assert run_ranks(random_averages, 4, "shm", env=SMALL_RING) == first
    assert run_ranks(random_averages, 4, "gloo") == first


def as_thread(rank, n, stores, transport):
    """One rank of two groups, in which the ranks are numbered in opposite directions."""
    groups = []
    for store, at in zip(stores, (rank, n - 1 - rank), strict=True):
        options = bf.BluefogOptions(transport=transport)
        options.global_ranks_in_group = list(range(n))
        groups.append(make_backend(store, at, n, options))
    one, other = groups
    bf.set_topology(exact_weights(bf.exponential(n)), group=one)
    bf.set_topology("one_peer_exponential", group=other)
    for i in range(20):
        x, y = value_of(rank, (i * 1000,)), value_of(n - 1 - rank, (50_000,), torch.float64)
        pending = bf.neighbor_allreduce(x, group=one, async_op=True)
        step = bf.get_topology(group=other)(i)
        assert_same(bf.neighbor_allreduce(y, group=other), dense(step, n - 1 - rank, *like(y)))
        pending.wait()
        (x,) = pending.get_future().value()
        assert_same(x, dense(bf.get_topology(group=one), rank, *like(x)))
    for group in groups:
        group.shutdown()


def like(x):
    return x.shape, x.dtype


def threads(rank, nproc, n, transport):
    """Two rounds, so that the second meets whatever the first one left behind."""
    for _ in range(2):
        stores = [dist.HashStore(), dist.HashStore()]
        with ThreadPoolExecutor(n) as pool:
            for future in [pool.submit(as_thread, r, n, stores, transport) for r in range(n)]:
                future.result()


@pytest.mark.parametrize(("n", "transport"), [(8, "shm"), (8, "gloo"), (16, "auto")])
def test_ranks_as_threads_of_one_process(n, transport):
    run_ranks(threads, 1, n, transport)
