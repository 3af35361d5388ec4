"""hierarchical_neighbor_allreduce: machines' means m_M, averaged with their neighbours' ones."""

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

import bluefog_pg.torch as bf


def of_machines(row, local_size, shape, dtype=torch.float64):
    """sum_M row[M] m_M, as weights of ranks."""
    ranks = {
        machine * local_size + local: weight / local_size
        for machine, weight in row.items()
        for local in range(local_size)
    }
    return mixed(ranks, shape, dtype)


def machine_topologies(rank, n, local_size):
    machine, machines = bf.machine_rank(), bf.machine_size()
    for graph in (bf.RingGraph(machines), random_graph(machines, seed=4)):
        assert bf.set_machine_topology(graph) and bf.load_machine_topology() is graph
        row = uniform_row(graph, machine)
        assert bf.in_neighbor_machine_ranks() == sorted(row.keys() - {machine})
        for dtype in UNIT:
            for shape in SHAPES:
                x = x_of(rank, shape, dtype)
                y = bf.hierarchical_neighbor_allreduce(x)
                assert_close(y, of_machines(row, local_size, shape, dtype))
                assert torch.equal(x, x_of(rank, shape, dtype))
        assert bf.set_machine_topology(graph, is_weighted=True) and bf.is_machine_topo_weighted()
        column = dict(enumerate(nx.to_numpy_array(graph, nodelist=range(machines))[:, machine]))
        y = bf.hierarchical_neighbor_allreduce(x_of(rank, (5,)), name="weighted")
        assert_close(y, of_machines(column, local_size, (5,)))


def machines_of_the_call(rank, n, local_size):
    """Also where a machine receives from more machines than it sends to, or the other way."""
    machine, machines = bf.machine_rank(), bf.machine_size()
    scale = np.random.default_rng(5).uniform(0.1, 1, (machines, machines))
    edges = [(0, m) for m in range(1, machines)] + [(machines - 1, 0)]
    src = {a: 0.5 + a for a, b in edges if b == machine}
    dst = {b: scale[machine, b] for a, b in edges if a == machine}
    for given, factor in ((dst, scale), ([*dst], np.ones_like(scale))):
        y = bf.hierarchical_neighbor_allreduce(
            x_of(rank, (7,)),
            self_weight=0.25,
            src_machine_weights=src,
            dst_machine_weights=given,
            enable_topo_check=True,
        )
        row = {machine: 0.25} | {a: w * factor[a, machine] for a, w in src.items()}
        assert_close(y, of_machines(row, local_size, (7,)), units=8)


def in_flight_with_others(rank, n, local_size):
    """Started together with operations of ranks, and finished in another order."""
    bf.set_topology(bf.RingGraph(n))
    bf.set_machine_topology(bf.FullyConnectedGraph(bf.machine_size()))
    x = x_of(rank, (1000,))
    handles = [bf.hierarchical_neighbor_allreduce_nonblocking(x * k) for k in (1, 2, 4)]
    ring = bf.neighbor_allreduce_nonblocking(x)
    assert_close(bf.wait(ring), mixed(uniform_row(bf.RingGraph(n), rank), (1000,)))
    mean = mixed([1 / n] * n, (1000,))
    for k, handle in zip((4, 2, 1), reversed(handles), strict=True):
        assert_close(bf.wait(handle), k * mean, units=8)
    handle = bf.hierarchical_neighbor_allreduce_nonblocking(x)
    bf.wait(bf.allreduce_nonblocking(x, is_hierarchical_local=True))
    assert bf.poll(handle)  # this thread works first in, first out


def wrong_arguments(rank, n, local_size):
    x, other = torch.ones(2), (bf.machine_rank() + 1) % bf.machine_size()
    average = bf.hierarchical_neighbor_allreduce
    for given in (
        dict(self_weight=0.5),
        dict(self_weight=0.5, src_machine_weights={other: 0.5}),
        dict(src_machine_weights={other: 0.5}, dst_machine_weights=[other]),
    ):
        raises(ValueError, lambda given=given: average(x, **given))
    raises(ValueError, lambda: average(x.int()), "not supported")
    behind = (bf.machine_rank() - 1) % bf.machine_size()
    given = dict(self_weight=0.5, src_machine_weights={behind: 0.5}, enable_topo_check=True)
    given["dst_machine_weights"] = [] if bf.machine_rank() == 1 else [other]
    raises(ValueError, lambda: average(x, **given), "receive from rank 1, which does not send")
    given["dst_machine_weights"] = [other]
    assert_close(average(x, **given), x)
    raises(ValueError, lambda: bf.set_machine_topology(None))
    raises(TypeError, lambda: bf.set_machine_topology(bf.RingGraph(n + 1)), "machines")
    raises(TypeError, lambda: bf.set_machine_topology(nx.path_graph(bf.machine_size())))


def run_all(rank, n, local_size):
    started(local_size=local_size)
    assert (bf.local_size(), bf.local_rank()) == (local_size, rank % local_size)
    assert (bf.machine_size(), bf.machine_rank()) == (n // local_size, rank // local_size)
    assert bf.is_homogeneous()
    assert bf.load_machine_topology() is None and bf.in_neighbor_machine_ranks() == []
    raises(RuntimeError, lambda: bf.hierarchical_neighbor_allreduce(torch.ones(1)))
    for check in (
        wrong_arguments,
        machine_topologies,
        machines_of_the_call,
        in_flight_with_others,
    ):
        check(rank, n, local_size)


@pytest.mark.parametrize(("n", "local_size"), [(4, 2), (8, 2), (6, 3), (3, 1)])
def test_hierarchical(n, local_size):
    run_ranks(run_all, n, local_size, timeout=120)
