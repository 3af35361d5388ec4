"""neighbor_allreduce: the weighted averages that it returns, on every transport and topology.

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
from support import FLOATS, TRANSPORTS, assert_same, dense, exact_weights, start, value_of

import bluefog_pg as bf
from bluefog_pg._create import make_backend
from bluefog_pg.topology import SizeError, names

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


@pytest.mark.parametrize(
    ("transport", "env"),
    [("shm", {}), ("shm", SMALL_RING), ("tcp", {}), ("gloo", {}), ("mixed", {})],
)
def test_equals_the_dense_product(transport, env):
    run_ranks(every_dtype_and_shape, 4, transport, env=env)


def named_topologies(rank, n, transport):
    """Some steps of every topology that exists for n ranks, against the dense product."""
    start(transport)
    for name in names():
        try:
            bf.set_topology(name)
        except SizeError:
            continue
        topology = bf.get_topology()
        for step in range(3):
            graph = topology(step) if isinstance(topology, bf.Schedule) else topology
            y = bf.neighbor_allreduce(value_of(rank, (50,), torch.float64))
            # n terms, each rounded once when multiplied and once when added.
            bound = 2 * n * torch.finfo(torch.float64).eps * 251
            expected = dense(graph, rank, (50,), torch.float64)
            torch.testing.assert_close(y, expected, rtol=0, atol=bound)


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
    assert run_ranks(random_averages, 4, "tcp") == first
    assert run_ranks(random_averages, 4, "gloo") == first
    assert run_ranks(random_averages, 4, "mixed") == first


def as_thread(rank, n, stores, transport):
    """One rank of two groups, in which the ranks are numbered in opposite directions."""
    groups = []
    for meeting, at in zip(stores, (rank, n - 1 - rank), strict=True):
        options = bf.BluefogOptions(transport=transport)
        options.global_ranks_in_group = list(range(n))
        groups.append(make_backend(meeting, at, n, options))
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


@pytest.mark.parametrize(("n", "transport"), [(8, "shm"), (8, "tcp"), (8, "gloo"), (16, "auto")])
def test_ranks_as_threads_of_one_process(n, transport):
    run_ranks(threads, 1, n, transport)
