"""neighbor_allreduce: out_i = self_weight x_i + sum_j src_weights[j] dst_weights_j[i] x_j."""

import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from bluefog_cases import (
    SHAPES,
    UNIT,
    assert_close,
    mixed,
    raises,
    random_graph,
    started,
    uniform_row,
    x_of,
)
from ranks import run_ranks
from support import start

import bluefog_pg.torch as bf

GRAPHS = [
    bf.RingGraph,
    lambda n: bf.RingGraph(n, connect_style=1),
    bf.StarGraph,
    bf.MeshGrid2DGraph,
    bf.FullyConnectedGraph,
    bf.ExponentialTwoGraph,
    bf.SymmetricExponentialGraph,
    lambda n: random_graph(n, seed=1),
]
TYPED = [(dtype, shape) for dtype in UNIT for shape in SHAPES]


def static_topologies(rank, n):
    warnings.filterwarnings("ignore", "the weights of rank")
    started()
    for dtype, shape in TYPED:  # the default topology
        x = x_of(rank, shape, dtype)
        expected = mixed(uniform_row(bf.ExponentialGraph(n), rank), shape, dtype)
        assert_close(bf.neighbor_allreduce(x), expected)
        assert torch.equal(x, x_of(rank, shape, dtype))
    for graph in (make(n) for make in GRAPHS):
        x = x_of(rank, (3, 4))
        assert bf.set_topology(graph) and bf.load_topology() is graph and not bf.is_topo_weighted()
        assert_close(bf.neighbor_allreduce(x), mixed(uniform_row(graph, rank), (3, 4)))
        # The same graph again: only whether its weights count has changed.
        assert bf.set_topology(graph, is_weighted=True) and bf.is_topo_weighted()
        column = nx.to_numpy_array(graph, nodelist=range(n))[:, rank]
        assert_close(bf.neighbor_allreduce(x), mixed(column, (3, 4)))
        self_weight, sources = bf.GetRecvWeights(bf.load_topology(), rank)
        assert bf.in_neighbor_ranks() == [*sources]
        given = bf.neighbor_allreduce(x, self_weight=self_weight, src_weights=sources, name="x")
        assert_close(given, mixed(column, (3, 4)))


def weights_for_the_static_topology(rank, n):
    started(graph=bf.RingGraph(n))
    left, right = sorted([(rank - 1) % n, (rank + 1) % n])
    for sources in ({left: 0.3, right: -2.0}, {right: 0.5}, {left: 1.0}, {}):
        y = bf.neighbor_allreduce(x_of(rank, (5,)), self_weight=0.7, src_weights=sources)
        assert_close(y, mixed({rank: 0.7, **sources}, (5,)), units=8)
    stranger = (rank + n // 2) % n if n > 3 else None
    raises(
        ValueError,
        lambda: bf.neighbor_allreduce(torch.ones(1), self_weight=0.5, src_weights={stranger: 0.5}),
        f"[{stranger}]",
    )


def neighbours_of_the_call(rank, n):
    started(graph=bf.RingGraph(n))
    graph = random_graph(n, seed=2)
    generator = np.random.default_rng(3)
    scale = generator.uniform(0.1, 1, (n, n))
    sources = [j for j in graph.predecessors(rank) if j != rank]
    destinations = [j for j in graph.successors(rank) if j != rank]
    src = {j: graph[j][rank]["weight"] for j in sources}
    for dtype, shape in TYPED:
        x = x_of(rank, shape, dtype)
        own = {rank: 0.25}
        y = bf.neighbor_allreduce(x, self_weight=0.25, src_weights=src, dst_weights=destinations)
        assert_close(y, mixed(own | src, shape, dtype), units=2 * n)
        y = bf.neighbor_allreduce(
            x,
            self_weight=0.25,
            src_weights=src,
            dst_weights={j: scale[rank, j] for j in destinations},
            enable_topo_check=False,
            name="scaled",
        )
        both = {j: weight * scale[j, rank] for j, weight in src.items()}
        assert_close(y, mixed(own | both, shape, dtype), units=2 * n)
        assert torch.equal(x, x_of(rank, shape, dtype))


def nobody_to_receive_from(rank, n):
    """Its result is self_weight x, in memory of its own."""
    started()
    x = x_of(rank, (5,))
    y = bf.neighbor_allreduce(x, self_weight=0.5, src_weights={}, dst_weights=[])
    assert_close(y, 0.5 * x_of(rank, (5,)))
    assert torch.equal(x, x_of(rank, (5,))) and y.data_ptr() != x.data_ptr()
    sources, destinations = ({0: 1.0}, []) if rank else ({}, range(1, n))  # only 0 sends
    y = bf.neighbor_allreduce(x, self_weight=0.5, src_weights=sources, dst_weights=[*destinations])
    assert_close(y, mixed({rank: 0.5} | sources, (5,)))
    assert torch.equal(x, x_of(rank, (5,)))


def weights_in_double_precision(rank, n):
    """A third, which has no exact float32: BlueFog was off by 2e-8 here."""
    started()
    right, left = (rank + 1) % n, (rank - 1) % n
    x = torch.ones(3, dtype=torch.float64)
    y = bf.neighbor_allreduce(
        x, self_weight=0.0, src_weights={left: 1.0}, dst_weights={right: 1 / 3}
    )
    assert_close(y, x / 3, units=1)
    p = torch.ones(1, dtype=torch.float64)
    for _ in range(100):  # push-sum, of which the sum over ranks is kept
        third = 1 / 3
        p = bf.neighbor_allreduce(
            p,
            self_weight=third if rank % 2 else 2 * third,
            src_weights={left: 1.0},
            dst_weights={right: 1 - third if rank % 2 else third},
            enable_topo_check=False,
        )
    assert abs(bf.allreduce(p, average=False).item() - n) < 1e-12 * n


def ranks_that_disagree(rank, n):
    """All ranks raise, and go on."""
    started()
    x = x_of(rank, (5,))
    right, left = (rank + 1) % n, (rank - 1) % n
    given = dict(self_weight=0.5, src_weights={left: 0.5}, dst_weights=[right])
    if rank == 1:
        given["dst_weights"] = []
    words = "rank 2 wants to receive from rank 1"
    raises(ValueError, lambda: bf.neighbor_allreduce(x, **given), words)
    handle = bf.neighbor_allreduce_nonblocking(x, **given)
    raises(ValueError, lambda: bf.synchronize(handle), words)
    given["dst_weights"] = [right]
    assert_close(bf.neighbor_allreduce(x, **given), mixed({rank: 0.5, left: 0.5}, (5,)))
    ragged = x_of(rank, (4 if rank else 5,))
    handle = bf.neighbor_allreduce_nonblocking(ragged, **given)
    if rank in (0, 1, n - 1):
        raises(ValueError, lambda: bf.synchronize(handle), "rank 0")
    else:
        bf.synchronize(handle)
    bf.barrier()
    assert_close(bf.neighbor_allreduce(x, **given), mixed({rank: 0.5, left: 0.5}, (5,)))


def wrong_arguments(rank, n):
    started(graph=bf.RingGraph(n))
    x, other = torch.ones(2), (rank + 1) % n
    for given, words in (
        (dict(self_weight=0.5), "together"),
        (dict(src_weights={other: 0.5}), "together"),
        (dict(dst_weights=[other]), "together"),
        (dict(self_weight=0.5, dst_weights=[other]), "together"),
        (dict(src_weights={other: 0.5}, dst_weights=[other]), "together"),
        (dict(self_weight="half", src_weights={other: 0.5}), "must be a float"),
        (dict(self_weight=0.5, src_weights=[other]), "must be a dict"),
        (dict(self_weight=0.5, src_weights={}, dst_weights=[other, other]), "twice"),
        (dict(self_weight=0.5, src_weights={}, dst_weights=7), "a dict or a list"),
        (dict(self_weight=0.5, src_weights={}, dst_weights=[n]), f"{n}"),
        (dict(self_weight=0.5, src_weights={rank: 1.0}, dst_weights=[]), f"{rank}"),
        (dict(self_weight=float("nan"), src_weights={}, dst_weights=[]), "nan"),
    ):
        raises(ValueError, lambda given=given: bf.neighbor_allreduce(x, **given), words)
    for dtype in (torch.int32, torch.int64, torch.bool, torch.complex64):
        raises(ValueError, lambda d=dtype: bf.neighbor_allreduce(x.to(d)), "not supported")
    raises(TypeError, lambda: bf.neighbor_allreduce(x, neighbor_weights={}))
    raises(TypeError, lambda: bf.neighbor_allreduce(x, send_neighbors=[]))
    raises(TypeError, lambda: bf.neighbor_allreduce(x, 0.5))
    assert_close(bf.neighbor_allreduce(x), torch.ones(2))  # nobody is out of step


def odd_tensors(rank, n):
    """Parameters, transposed and strided tensors, numpy's numbers as ranks and weights."""
    started(graph=bf.RingGraph(n))
    row = uniform_row(bf.RingGraph(n), rank)
    parameter = torch.nn.Parameter(x_of(rank, (3, 4)))
    assert_close(bf.neighbor_allreduce(parameter), mixed(row, (3, 4)))
    assert_close(bf.neighbor_allreduce(x_of(rank, (3, 4)).T), mixed(row, (3, 4)).T)
    assert_close(bf.neighbor_allreduce(x_of(rank, (3, 4))[:, ::2]), mixed(row, (3, 4))[:, ::2])
    right, left = np.int64((rank + 1) % n), np.int64((rank - 1) % n)
    y = bf.neighbor_allreduce(
        x_of(rank, (5,)),
        self_weight=np.float32(0.5),
        src_weights={left: np.float64(0.5)},
        dst_weights=np.array([right]),
    )
    assert_close(y, mixed({rank: 0.5, int(left): 0.5}, (5,)))
    assert bf.neighbor_allreduce(torch.empty(0, 3)).shape == (0, 3)


def many_in_flight(rank, n):
    """Tensors of 1 MB on a star of which rank 0 is no center: BlueFog overran a buffer here."""
    center = n - 1
    started(graph=bf.StarGraph(n, center_rank=center))
    row = uniform_row(bf.StarGraph(n, center_rank=center), rank)
    handles = [
        bf.neighbor_allreduce_nonblocking(
            torch.full((1 << 18,), float(rank + tensor)), name=f"tensor {tensor}"
        )
        for tensor in range(8)
    ]
    for tensor, handle in enumerate(handles):
        expected = sum(weight * (j + tensor) for j, weight in row.items())
        assert_close(bf.synchronize(handle), torch.full((1 << 18,), expected))


CHECKS = (
    static_topologies,
    weights_for_the_static_topology,
    neighbours_of_the_call,
    nobody_to_receive_from,
    weights_in_double_precision,
    ranks_that_disagree,
    wrong_arguments,
    odd_tensors,
    many_in_flight,
)


def run_all(rank, n):
    for check in CHECKS:
        check(rank, n)


@pytest.mark.parametrize("n", [4, 8])
def test_neighbor_allreduce(n):
    run_ranks(run_all, n, timeout=120)


def run_without_shared_memory(rank, n):
    """What ranks on different hosts do."""
    start("gloo")
    for check in (static_topologies, neighbours_of_the_call, ranks_that_disagree, many_in_flight):
        check(rank, n)


def test_between_hosts():
    run_ranks(run_without_shared_memory, 4, timeout=120)
