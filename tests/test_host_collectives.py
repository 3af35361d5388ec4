"""Standard collectives over the shared memory of one host: they are Gloo's, and alike on all ranks.

Whether one took that way shows in the backend's `host_collectives`, which counts those that did.
"""

import copy
import itertools

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import FLOATS, assert_same, attempt, averages, start, value_of

import bluefog_pg as bf
from bluefog_pg.group import backend_of

SUM, AVG = dist.ReduceOp.SUM, dist.ReduceOp.AVG
DTYPES = [*FLOATS, torch.uint8, torch.int64, torch.bool, torch.complex64]
SMALL = {"BLUEFOG_SHM_CHUNK_BYTES": "4096", "BLUEFOG_SHM_CHUNKS": "4"}  # a ring of 16 KiB
SIZES = [0, 1, 7, 1023, 20_001, 300_001]  # the last two: in two exchanges, more than the ring


def few(rank, size, dtype):
    """Whole numbers up to 15, whose sums every dtype holds."""
    return (torch.arange(size) * 3 + rank * 5).remainder(16).to(dtype)


def results(rank, n, group, make, dtype, size):
    """(what, result) of every collective that this dtype has."""
    if dtype.is_floating_point:
        for op in (SUM, AVG):
            x = make(rank, size, dtype)
            dist.all_reduce(x, op, group=group)
            yield "all_reduce", x
            whole, out = make(rank, n * size, dtype), torch.empty(size, dtype=dtype)
            dist.reduce_scatter_tensor(out, whole, op, group=group)
            yield "reduce_scatter_tensor", out
        parts = [make(rank + j, size, dtype) for j in range(n)]
        dist.reduce_scatter(out := torch.empty(size, dtype=dtype), parts, group=group)
        yield "reduce_scatter", out
    for root in range(n):
        x = make(rank, size, dtype)
        dist.broadcast(x, src=root, group=group)
        yield "broadcast", x
    outs = [torch.empty(size, dtype=dtype) for _ in range(n)]
    dist.all_gather(outs, make(rank, size, dtype), group=group)
    yield "all_gather", torch.cat(outs)
    whole = torch.empty(n * size, dtype=dtype)
    dist.all_gather_into_tensor(whole, make(rank, size, dtype), group=group)
    yield "all_gather_into_tensor", whole


def noise(rank, size, dtype):
    return torch.randn(size, generator=torch.Generator().manual_seed(rank), dtype=dtype)


def same_as_gloo(rank, n):
    start()
    gloo = dist.new_group(backend="gloo")
    for dtype, size in itertools.product(DTYPES, SIZES):
        before = backend_of().host_collectives
        ours = list(results(rank, n, None, few, dtype, size))
        assert backend_of().host_collectives == before + len(ours)
        for (what, mine), (_, other) in zip(
            ours, results(rank, n, gloo, few, dtype, size), strict=True
        ):
            exact = n in (1, 2, 4) or dtype not in FLOATS
            torch.testing.assert_close(
                mine, other, rtol=0 if exact else None, atol=0 if exact else None, msg=what
            )
    for dtype, size in itertools.product(FLOATS, SIZES):
        ours = list(results(rank, n, None, noise, dtype, size))
        theirs = list(results(rank, n, gloo, noise, dtype, size))
        few_bits = 4 * n * torch.finfo(dtype).eps
        for (what, mine), (_, other) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=few_bits, atol=few_bits, msg=what)
            if not what.startswith("reduce_scatter"):
                assert_alike(mine, gloo, what)
    dist.barrier()
    averages(rank, n)


def assert_alike(x, group, what):
    """Asserts that all ranks of the group have the same bits."""
    first = x.clone()
    dist.broadcast(first, src=0, group=group)
    assert torch.equal(first.view(torch.uint8), x.view(torch.uint8)), what


@pytest.mark.parametrize("env", [{}, SMALL], ids=["ring", "small ring"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_same_as_gloo(n, env):
    run_ranks(same_as_gloo, n, env=env, timeout=200)


def strides(rank, n):
    """Views of all kinds are as good as plain memory, and what lies around them stays."""
    start()
    for size in (5, 300):
        base = value_of(rank, (size, 2 * size))
        view, around = base.t()[::2], base.t()[1::2].clone()
        dist.all_reduce(view)
        assert_same(view, sum(value_of(j, (size, 2 * size)) for j in range(n)).t()[::2])
        assert_same(base.t()[1::2], around)
        view = value_of(rank, (size, 2 * size)).t()
        dist.broadcast(view, src=1)
        assert_same(view, value_of(1, (size, 2 * size)).t())
        outs = [torch.empty(2 * size, size).t() for _ in range(n)]
        dist.all_gather(outs, value_of(rank, (2 * size, size)).t())
        for j in range(n):
            assert_same(outs[j], value_of(j, (2 * size, size)).t())
        # In place, as FSDP does: the input is this rank's part of the output, or the reverse.
        whole = torch.full((n, size), -1.0)
        whole[rank] = value_of(rank, (size,))
        dist.all_gather_into_tensor(whole.view(-1), whole[rank])
        assert_same(whole, torch.stack([value_of(j, (size,)) for j in range(n)]))
        for part in (rank, (rank + 1) % n):
            whole = value_of(rank, (n * size,))
            out = whole[part * size : (part + 1) * size]
            dist.reduce_scatter_tensor(out, whole)
            mine = slice(rank * size, (rank + 1) * size)
            assert_same(out, sum(value_of(j, (n * size,)) for j in range(n))[mine])
    p = torch.nn.Parameter(value_of(rank, (3,)))
    dist.broadcast(p, src=0)
    assert_same(p.detach(), value_of(0, (3,)))
    # Memory that neighbours can read in place.
    backend = backend_of()
    x = backend.allocate_tensor(200_000, dtype=torch.float32, device=torch.device("cpu"))
    for root in range(n):
        x.copy_(value_of(rank, x.shape))
        dist.broadcast(x, src=root)
        assert_same(x, value_of(root, x.shape))
    x.copy_(value_of(rank, x.shape))
    whole = torch.empty(n, *x.shape)
    dist.all_gather_into_tensor(whole.view(-1), x)
    assert_same(whole, torch.stack([value_of(j, x.shape) for j in range(n)]))
    dist.all_reduce(x)
    assert_same(x, whole.sum(0))


@pytest.mark.parametrize("n", [2, 3])
def test_strides_and_in_place(n):
    run_ranks(strides, n)


def overlapping(rank, n):
    """Many collectives and neighbor operations are under way at once."""
    start()
    averages(rank, n)
    topology = bf.get_topology()
    alone = bf.neighbor_allreduce(value_of(rank, (1000,)))
    for _ in range(10):
        xs = [value_of(rank, (size,)) for size in (3, 100_000, 0, 20)]
        works = [dist.all_reduce(x, async_op=True) for x in xs]
        neighbor = bf.neighbor_allreduce(value_of(rank, (1000,)), async_op=True)
        outs = [torch.empty(7) for _ in range(n)]
        works.append(dist.all_gather(outs, value_of(rank, (7,)), async_op=True))
        dist.barrier()
        assert all(work.is_completed() for work in works)  # one after the other
        for work in works:
            work.wait()
        for x in xs:
            assert_same(x, sum(value_of(j, x.shape) for j in range(n)))
        assert [t.data_ptr() for t in works[0].result()] == [xs[0].data_ptr()]
        assert_same(works[1].get_future().wait()[0], xs[1])
        assert len(works[-1].get_future().wait()) == n
        neighbor.wait()
        assert_same(neighbor.result()[0], alone)
    work = dist.all_reduce(x := torch.ones(2), async_op=True)
    doubled = work.get_future().then(lambda future: future.value()[0] * 2)
    assert_same(doubled.wait(), torch.full((2,), 2.0 * n))
    with dist._coalescing_manager(async_ops=True) as manager:
        for x in xs:
            dist.all_reduce(x.fill_(1))
    manager.wait()
    assert all((x == n).all() for x in xs)
    assert topology is bf.get_topology()


def test_overlap():
    run_ranks(overlapping, 3)


def callbacks(rank, n):
    """A callback may wait for collectives of its own, in both ways, as with Gloo."""
    start()
    groups = [dist.new_group() for _ in range(4)]

    def nested(group):
        dist.all_reduce(x := torch.ones(3), group=group)
        work = dist.all_reduce(x, group=group, async_op=True)
        (x,) = work.get_future().wait()
        (x,) = dist.all_reduce(x, group=group, async_op=True).get_future().wait()
        return x

    for _ in range(20):
        works = [dist.all_reduce(torch.ones(9), async_op=True) for _ in groups]
        futures = [
            work.get_future().then(lambda _, group=group: nested(group))
            for work, group in zip(works, groups, strict=True)
        ]
        for future in futures:
            assert_same(future.wait(), torch.full((3,), float(n**3)))
    # Of the same group, and while others of it are queued.
    work = dist.all_reduce(torch.ones(9), async_op=True)
    future = work.get_future().then(lambda _: nested(None))
    assert_same(future.wait(), torch.full((3,), float(n**3)))
    assert backend_of().host_collectives == 20 * 4 + 4


def test_callbacks_may_wait():
    run_ranks(callbacks, 2)


def turned_off(rank, n, way):
    if way == "option":
        options = copy.deepcopy(copy.copy(bf.BluefogOptions(host_collectives=False)))
        assert not options.host_collectives
        dist.init_process_group("bluefog", pg_options=options)
    else:
        start({"environment": "auto", "two hosts": "mixed"}.get(way, way))
    for _ in range(3):
        x = torch.ones(100_000)
        dist.all_reduce(x)
        assert (x == n).all()
        dist.barrier()
    assert backend_of().host_collectives == 0
    if way != "two hosts":
        assert backend_of().options.host_collectives is (way != "option")
    averages(rank, n)


@pytest.mark.parametrize("way", ["option", "environment", "tcp", "gloo", "two hosts"])
def test_turned_off(way):
    env = {"BLUEFOG_HOST_COLLECTIVES": "0"} if way == "environment" else {}
    run_ranks(turned_off, 3, way, env=env)


def left_to_gloo(rank, n):
    """What has no way of its own over shared memory."""
    start()
    dist.barrier()
    x = value_of(rank, (4,))
    for call in (
        lambda: dist.all_reduce(x.long()),
        lambda: dist.all_reduce(x, dist.ReduceOp.MAX),
        lambda: dist.reduce(x, 0),
        lambda: dist.all_reduce(torch.eye(3).to_sparse()),
        lambda: dist.all_to_all_single(torch.empty(n), torch.ones(n)),
    ):
        call()
        assert backend_of().host_collectives == 1
    for _ in range(10):  # in turn, and at once
        both = torch.full((1000,), 1.0), torch.full((1000,), 1)
        works = [dist.all_reduce(tensor, async_op=True) for tensor in both]
        for work in works:
            work.wait()
        assert all((tensor == n).all() for tensor in both)
    assert backend_of().host_collectives == 11
    for wrong in (
        lambda: dist.all_gather([torch.empty(2)] * n, x),
        lambda: dist.all_gather_into_tensor(torch.empty(3), x),
        lambda: dist.reduce_scatter_tensor(torch.empty(3), x),
    ):
        assert attempt(wrong) is not None
    assert backend_of().host_collectives == 11


def test_left_to_gloo():
    run_ranks(left_to_gloo, 2)


def subgroups(rank, n):
    start()
    for ranks in ([0, 1, 2], [1, 3], [2]):
        group = dist.new_group(ranks)
        if rank not in ranks:
            continue
        x = value_of(rank, (70_000,))
        dist.all_reduce(x, group=group)
        assert_same(x, sum(value_of(j, (70_000,)) for j in ranks))
        dist.broadcast(x, src=ranks[-1], group=group)
        dist.barrier(group=group)
        assert backend_of(group).host_collectives == 3
    objects = [None] * n
    dist.all_gather_object(objects, {"rank": rank})
    assert [entry["rank"] for entry in objects] == list(range(n))


def test_subgroups():
    run_ranks(subgroups, 4)


def profiled(rank, n):
    start()
    dist.barrier()
    with torch.profiler.profile() as profile:
        dist.all_reduce(torch.ones(3))
        dist.all_reduce(torch.ones(3), async_op=True).wait()
        dist.all_reduce(torch.ones(3, dtype=torch.int32))
    names = [event.name for event in profile.events()]
    assert names.count("bluefog:all_reduce") == 2 and names.count("gloo:all_reduce") == 1


def test_profile():
    run_ranks(profiled, 2)
