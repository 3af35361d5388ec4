"""One-sided windows: BlueFog's semantics, by values, on one host and between hosts."""

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import assert_same, start, value_of

import bluefog_pg as bf

INTEGERS = [torch.int32, torch.int64]
OF_TWO = pytest.mark.parametrize("transport", ["auto", "tcp"])
OF_MORE = pytest.mark.parametrize("transport", ["auto", "tcp", "mixed"])


def barrier():
    """After it all that any rank has sent before is there."""
    for name in bf.get_current_created_window_names():
        bf.win_flush(name)
    dist.barrier()


def scalar(rank):
    return torch.tensor([float(rank)], dtype=torch.float64)


# ---- The tutorial's section 6


def tutorial(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    x = scalar(rank)
    bf.win_create(x, "x")
    barrier()
    if rank == 0:
        bf.win_get("x")
        bf.win_update("x")
    barrier()
    after_get = x.item()
    bf.win_free("x")

    x = scalar(rank)
    bf.win_create(x, "x")
    barrier()
    if rank == 0:
        bf.win_get("x", src_weights={3: 0.5})
        bf.win_update("x", self_weight=1.0, neighbor_weights={3: 0.4})
    barrier()
    weighted = x.item()
    bf.win_free("x")

    x = scalar(rank)
    bf.win_create(x, "x", zero_init=True)
    seen = []
    for _ in range(2):
        if rank == 0:
            bf.win_accumulate(torch.ones(1, dtype=torch.float64), "x", dst_weights={1: 1.0})
        barrier()
        seen.append(bf.win_update("x", 1.0, {(rank - 1) % nproc: 1.0}, clone=True).item())
        barrier()
    bf.win_free("x")
    return after_get, weighted, seen


@OF_MORE
def test_the_tutorial(transport):
    values = run_ranks(tutorial, 4, transport)
    assert [value[0] for value in values] == pytest.approx([(0 + 1 + 3) / 3, 1, 2, 3], abs=1e-15)
    assert [value[1] for value in values] == pytest.approx([0.5 * 3 * 0.4, 1, 2, 3], abs=1e-15)
    assert values[1][2] == [2.0, 3.0]  # 1 + 1, and then 1 + 2


# ---- The formulas, on any directed graph


def digraph(nproc):
    """A ring of one direction, and chords from even ranks."""
    graph = nx.DiGraph((rank, (rank + 1) % nproc) for rank in range(nproc))
    graph.add_edges_from((rank, (rank + 3) % nproc) for rank in range(0, nproc, 2))
    return graph


def weight(source, rank):
    return 2.0 ** -(1 + (source + 2 * rank) % 4)


def formulas(rank, nproc, transport, dtype):
    start(transport)
    graph = digraph(nproc)
    bf.set_topology(graph)
    shape = (3, 5)
    sources, destinations = sorted(graph.predecessors(rank)), sorted(graph.successors(rank))
    to = {j: weight(rank, j) for j in destinations}
    x = value_of(rank, shape, dtype)
    sums = {j: 1.0 for j in sources}
    with bf.Window(x, "x", zero_init=True) as window:
        assert window.in_neighbors == sources and window.out_neighbors == destinations
        barrier()
        window.put(dst_weights=to, self_weight=0.5)
        assert_same(x, (value_of(rank, shape, torch.float64) * 0.5).to(dtype))
        barrier()
        assert window.versions() == {j: 1 for j in sources}
        y = window.update(self_weight=0.0, neighbor_weights=sums, clone=True)
        assert_same(y, total(sources, rank, shape, 1.0).to(dtype))
        assert window.versions() == {j: 0 for j in sources}
        barrier()
        window.accumulate(value_of(rank, shape, dtype), dst_weights=to, require_mutex=True)
        barrier()
        assert window.versions() == {j: 0 for j in sources}, "an accumulate is no put"
        y = window.update(self_weight=0.0, neighbor_weights=sums, clone=True, reset=True)
        assert_same(y, total(sources, rank, shape, 2.0).to(dtype))
        y = window.update(self_weight=2.0, neighbor_weights=sums, clone=True)
        assert_same(y, value_of(rank, shape, torch.float64).to(dtype))  # 2 * 0.5, and no more
        barrier()
        window.get(src_weights={j: 4.0 for j in sources})
        barrier()
        y = window.update(self_weight=0.0, neighbor_weights=sums, require_mutex=True)
        gets = sum(2.0 * value_of(j, shape, torch.float64) for j in sources)
        assert_same(y, gets.to(dtype))
        assert y.data_ptr() == x.data_ptr() and y is window.tensor
        barrier()


def total(sources, rank, shape, scale):
    terms = [scale * weight(j, rank) * value_of(j, shape, torch.float64) for j in sources]
    return sum(terms).to(torch.float64)


@pytest.mark.parametrize("nproc", [4, 8])
@OF_MORE
def test_put_get_and_accumulate(transport, nproc):
    run_ranks(formulas, nproc, transport, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@OF_TWO
def test_dtypes(transport, dtype):
    run_ranks(many_shapes, 2, transport, dtype)


def many_shapes(rank, nproc, transport, dtype):
    """Weights are powers of two and values small: exact in every dtype."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    other = 1 - rank
    for shape in [(), (0,), (1,), (3, 5), (100_003,)]:
        x = value_of(rank, shape, dtype)
        with bf.Window(x, "x") as window:
            window.put(dst_weights=[other])
            barrier()
            y = window.update(self_weight=0.5, neighbor_weights={other: 0.5})
            mean = (value_of(0, shape, torch.float64) + value_of(1, shape, torch.float64)) / 2
            assert_same(y, mean.to(dtype))


def integers(rank, nproc, transport, dtype):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    x = torch.tensor([rank + 1, torch.iinfo(dtype).max], dtype=dtype)
    with bf.Window(x, "x", zero_init=True) as window:
        for call in (
            lambda: window.put(dst_weights={1 - rank: 0.5}),
            lambda: window.update(self_weight=1.0, neighbor_weights={1 - rank: 1.5}),
            lambda: window.accumulate(self_weight=0.5),
        ):
            with pytest.raises(ValueError, match="is no whole number, but the window has integers"):
                call()
        barrier()
        window.accumulate(dst_weights={1 - rank: -3})
        barrier()
        y = window.update(self_weight=4, neighbor_weights={1 - rank: 1}, reset=True)
    expected = [4 * (rank + 1) - 3 * (2 - rank), torch.iinfo(dtype).max]
    assert_same(y, torch.tensor(expected, dtype=dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
@OF_TWO
def test_integers(transport, dtype):
    run_ranks(integers, 2, transport, dtype)


# ---- More of a window


def defaults(rank, nproc, transport):
    """The topology's weights; a topology of the window's own; a schedule's edges together."""
    start(transport)
    graph = digraph(nproc)
    x = scalar(rank)
    with bf.Window(x, "x", topology=graph) as window:
        assert bf.get_topology() is None
        assert window.memory == "host memory"
        window.put()
        barrier()
        sources = sorted(graph.predecessors(rank))
        expected = (rank + sum(sources)) / (len(sources) + 1)
        assert window.update().item() == pytest.approx(expected, abs=1e-15)
    bf.set_topology(bf.one_peer_exponential(nproc))
    with bf.Window(x, "x") as window:
        hops = [1, 2] if nproc == 4 else [1]
        assert window.out_neighbors == sorted((rank + hop) % nproc for hop in hops)


@OF_MORE
def test_defaults(transport):
    run_ranks(defaults, 4, transport)


def handles(rank, nproc, transport):
    """Calls that nobody waits for come in order, and before those that follow."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    x = torch.zeros(1000, dtype=torch.float64)
    bf.win_create(x, "x", zero_init=True)
    barrier()
    works = [
        bf.win_accumulate_nonblocking(torch.full_like(x, float(k)), "x") for k in range(1, 101)
    ]
    bf.win_put(torch.full_like(x, 7.0), "x", dst_weights=[(rank + 1) % nproc])
    assert all(bf.win_poll(work) for work in works)
    bf.win_fence("x")
    ones = {j: 1.0 for j in bf.get_win_version("x")}
    left, right = (rank - 1) % nproc, (rank + 1) % nproc
    y = bf.win_update("x", 0.0, ones, clone=True)
    assert y.unique().tolist() == [7.0 + 5050.0]
    assert ones.keys() == {left, right}
    bad = bf.win_put_nonblocking(x, "x", dst_weights=[rank])
    with pytest.raises(ValueError, match="is none of its out-neighbours"):
        bf.win_wait(bad)
    with pytest.raises(ValueError, match="is none of its out-neighbours"):
        bf.win_wait(bad)
    bf.win_wait(bf.win_get_nonblocking("x"))
    bf.win_flush("x")
    bf.win_free()


@OF_MORE
def test_nonblocking_calls(transport):
    run_ranks(handles, 4, transport)


def associated_p(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    left, right = (rank - 1) % nproc, (rank + 1) % nproc
    x = scalar(rank)
    bf.win_create(x, "x", zero_init=True)
    bf.win_accumulate(x, "x", 0.5, {right: 0.5})
    barrier()
    bf.win_update_then_collect("x")
    assert bf.win_associated_p("x") == 1.0, "it is off"
    barrier()
    bf.turn_on_win_ops_with_associated_p()
    bf.win_put(x, "x", 0.25, {right: 0.75})
    barrier()
    assert bf.win_associated_p("x") == 0.25
    bf.win_update("x", 2.0, {left: 4.0})
    assert bf.win_associated_p("x") == 2 * 0.25 + 4 * 0.75
    barrier()
    bf.set_win_associated_p("x", 5.0)
    bf.turn_off_win_ops_with_associated_p()
    bf.win_put(x, "x", 0.5)
    assert bf.win_associated_p("x") == 5.0
    bf.win_free()


@OF_MORE
def test_associated_p(transport):
    run_ranks(associated_p, 4, transport)


def statistics(rank, nproc, transport):
    start(transport)
    bf.set_topology(bf.ring(nproc))
    other = 1 - rank
    with bf.Window(scalar(rank), "x") as window:
        barrier()
        if rank == 0:
            window.put()
            window.accumulate()
        barrier()
        for _ in range(3):
            window.update(require_mutex=True)
        if rank == 1:
            window.get()
        counts = window.statistics()
        fresh = rank == 1
        assert counts["in"] == {
            other: {"records": int(fresh), "gets": int(fresh), "staleness": 2 if fresh else 3}
        }
        sent = {"puts": int(rank == 0), "accumulates": int(rank == 0)}
        assert counts["out"] == {other: sent}
        barrier()
        with bf.win_lock("x") if rank == 0 else window.mutex(for_self=True):
            barrier()
            barrier()
        assert 0 <= counts["waited"] < 30
        holding = window.mutex() if rank == 0 else window.mutex(for_self=True)
        before = window.statistics()["waited"]
        if rank == 0:
            with holding:
                dist.barrier()
                torch.arange(10_000_000).sum()
        else:
            dist.barrier()
            with holding:
                pass
            assert window.statistics()["waited"] > before


@OF_TWO
def test_statistics(transport):
    run_ranks(statistics, 2, transport)


def several_groups(rank, nproc, transport):
    """Two groups with windows of one name, and one of part of the ranks."""
    start(transport)
    pair = dist.new_group([0, 1], backend="bluefog")
    bf.set_topology(bf.ring(nproc))
    x, y = scalar(rank), scalar(10 + rank)
    bf.win_create(x, "x")
    if rank < 2:
        bf.set_topology(bf.ring(2), group=pair)
        bf.win_create(y, "x", group=pair)
        bf.win_put(y, "x", group=pair)
        bf.win_fence("x", group=pair)
        assert bf.win_update("x", group=pair).item() == 10.5
        assert x.item() == rank
        bf.win_free(group=pair)
    assert bf.get_current_created_window_names() == ["x"]
    barrier()
    bf.win_free()


@OF_MORE
def test_several_groups(transport):
    run_ranks(several_groups, 3, transport)


def parameters(rank, nproc, transport):
    """A leaf that requires grad is changed in place; autograd is told."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    w = torch.nn.Parameter(torch.full((3,), float(rank)))
    loss = (w * w).sum()
    with bf.Window(w, "w") as window:
        window.put()
        barrier()
        assert window.update() is w and w.tolist() == [0.5] * 3
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        barrier()
        window.accumulate(w.detach().clone(), self_weight=0.5)


@OF_TWO
def test_parameters(transport):
    run_ranks(parameters, 2, transport)
