"""init and shutdown, ranks and machines, topologies, handles, timelines."""

import json
import os

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from bluefog_cases import assert_close, mixed, raises, started, uniform_row, x_of
from ranks import run_ranks
from support import store

import bluefog_pg
import bluefog_pg.torch as bf

ALONE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def before_init(rank, n):
    for call in (bf.rank, bf.size, bf.local_rank, bf.machine_size, bf.set_topology, bf.suspend):
        raises(ValueError, call, "BlueFog has not been initialized; use bf.init().")
    raises(ValueError, lambda: bf.allreduce(torch.ones(1)), "bf.init()")
    bf.shutdown()


def init_again(rank, n):
    bf.init()
    assert dist.get_backend() == "bluefog"
    assert (bf.rank(), bf.size()) == (rank, n) == (dist.get_rank(), dist.get_world_size())
    assert (bf.local_rank(), bf.local_size()) == (rank, n)  # all on this host
    assert (bf.machine_rank(), bf.machine_size()) == (0, 1) and bf.is_homogeneous()
    assert bf.IsTopologyEquivalent(bf.load_topology(), bf.ExponentialGraph(n))
    raises(ValueError, lambda: bf.init(local_size=2), "bf.shutdown()")
    group = dist.group.WORLD
    bf.init(bf.RingGraph, is_weighted=True)
    assert dist.group.WORLD is group and bf.is_topo_weighted()
    assert bf.IsTopologyEquivalent(bf.load_topology(), bf.RingGraph(n))
    bf.init(topology_fn=lambda size: bf.StarGraph(size, center_rank=1))
    assert not bf.is_topo_weighted()


def topologies(rank, n):
    assert bf.set_topology() is True  # the default
    assert bf.IsTopologyEquivalent(bf.load_topology(), bf.ExponentialGraph(n))
    graph = nx.DiGraph([(2, 0), (3, 0), (0, 3), (1, 2), (0, 0)])
    assert bf.set_topology(graph) and bf.load_topology() is graph
    assert bf.in_neighbor_ranks() == {0: [2, 3], 2: [1], 3: [0]}.get(rank, [])
    assert bf.out_neighbor_ranks() == {0: [3], 1: [2], 2: [0], 3: [0]}[rank]
    # Rank 0 asks for the second of its two in-neighbours: BlueFog gave it the first.
    sources = {3: 1.0} if rank == 0 else {}
    y = bf.neighbor_allreduce(x_of(rank, (5,)), self_weight=0.0, src_weights=sources)
    assert_close(y, mixed(sources, (5,)))
    for wrong in (
        bf.RingGraph(n + 1),
        nx.path_graph(n),
        "ring",
        bluefog_pg.one_peer_exponential(n),
    ):
        raises(TypeError, lambda wrong=wrong: bf.set_topology(wrong))
    raises(ValueError, lambda: bf.set_topology(bf.RingGraph(n, 1 + rank % 2)))  # they differ
    raises((TypeError, ValueError), lambda: bf.set_topology(bf.RingGraph(n + (rank == 2))))
    assert bf.load_topology() is graph and bf.in_neighbor_ranks() == [
        *graph.pred[rank].keys() - {rank}
    ]
    assert_close(bf.neighbor_allreduce(x_of(rank, (5,))), mixed(uniform_row(graph, rank), (5,)))


def handles(rank, n):
    """Rank 0 starts while the others cannot, so what it has started is under way."""
    bf.set_topology(bf.RingGraph(n))
    talk, x = store("handles"), x_of(rank, (5,))
    if rank != 0:
        talk.get("go")
    handle = bf.neighbor_allreduce_nonblocking(x, name="x")
    assert isinstance(handle, int)
    if rank == 0:
        assert not bf.poll(handle)
        again = lambda: bf.neighbor_allreduce_nonblocking(x, name="x")  # noqa: E731
        raises(ValueError, again, "DUPLICATE_NAME", "neighbor_allreduce.x")
        other = bf.allreduce_nonblocking(x, name="x")  # of another kind
        talk.set("go", "")
    else:
        other = bf.allreduce_nonblocking(x, name="x")
    assert_close(bf.synchronize(handle), mixed(uniform_row(bf.RingGraph(n), rank), (5,)))
    assert_close(bf.wait(other), mixed([1 / n] * n, (5,)))
    for gone in (handle, 10**9):
        raises(ValueError, lambda gone=gone: bf.synchronize(gone), "Cannot find handle")
        raises(ValueError, lambda gone=gone: bf.poll(gone), "Cannot find handle")
    first = bf.neighbor_allreduce_nonblocking(x, name="x")
    while not bf.poll(first):
        pass
    second = bf.neighbor_allreduce_nonblocking(x, name="x")  # has ended: the name is free
    assert torch.equal(bf.wait(second), bf.wait(first))


def suspended(rank, n):
    bf.suspend()
    raises(ValueError, lambda: bf.allreduce(torch.ones(1)), "bf.resume()")
    bf.resume()
    assert_close(bf.allreduce(torch.ones(1)), torch.ones(1))


def what_there_is(rank, n):
    bf.set_skip_negotiate_stage(False)
    assert bf.get_skip_negotiate_stage() is True
    assert bf.mpi_threads_supported() is False
    assert bf.unified_mpi_window_model_supported() is False
    assert bf.nccl_built() is dist.is_nccl_available()


def run_all(rank, n):
    for check in (before_init, init_again, topologies, handles, suspended, what_there_is):
        check(rank, n)
    bf.shutdown()
    assert not dist.is_initialized()
    raises(ValueError, bf.size, "bf.init()")


def test_basics():
    run_ranks(run_all, 4, timeout=120)


def join_a_group(rank, n, backend):
    dist.init_process_group(backend)
    bf.init(local_size=1)
    assert bf.allreduce(torch.tensor([1.0]), average=False).item() == n
    assert bf.machine_size() == n
    if backend == "bluefog":
        assert bluefog_pg.get_topology() is not None  # the group's own
    bf.shutdown()
    assert dist.is_initialized()  # who has made it destroys it
    bf.init()
    dist.destroy_process_group()


@pytest.mark.parametrize("backend", ["bluefog", "gloo"])
def test_joins_the_group_that_there_is(backend):
    run_ranks(join_a_group, 3, backend)


def simulated_machines(rank, n):
    bf.init()
    assert (bf.machine_rank(), bf.local_rank()) == divmod(rank, 2)
    bf.shutdown()


def machines_that_do_not_fit(rank, n):
    raises(ValueError, bf.init, "3 ranks", "BLUEFOG_NODES_PER_MACHINE")


def machines_of_torchrun(rank, n):
    """Two nodes of one and two ranks."""
    os.environ["GROUP_RANK"] = "0" if rank == 0 else "1"
    bf.init()
    assert (bf.local_rank(), bf.local_size()) == ((0, 1) if rank == 0 else (rank - 1, 2))
    assert not bf.is_homogeneous()
    raises(AssertionError, bf.machine_size, "equally many")
    mean = bf.allreduce(torch.tensor([float(rank)]), is_hierarchical_local=True)
    assert mean.item() == (0.0 if rank == 0 else 1.5)


def test_machines():
    run_ranks(simulated_machines, 4, env={"BLUEFOG_NODES_PER_MACHINE": "2"})
    run_ranks(machines_that_do_not_fit, 3, env={"BLUEFOG_NODES_PER_MACHINE": "2"})
    run_ranks(machines_of_torchrun, 3)


def alone(rank, n):
    for name in ALONE:
        del os.environ[name]
    for _ in range(2):  # again, after shutdown
        bf.init()
        x = x_of(0, (3, 4))
        assert (bf.rank(), bf.size(), bf.local_size(), bf.machine_size()) == (0, 1, 1, 1)
        assert bf.in_neighbor_ranks() == bf.out_neighbor_ranks() == []
        bf.set_machine_topology(bf.FullyConnectedGraph(1))
        for operation in (
            bf.neighbor_allreduce,
            bf.hierarchical_neighbor_allreduce,
            bf.allreduce,
            bf.allgather,
            lambda tensor: bf.broadcast(tensor, 0),
        ):
            assert torch.equal(operation(x), x)
        assert bf.neighbor_allgather(x).shape == (0, 4)
        bf.shutdown()


def test_single_process_without_torchrun():
    run_ranks(alone, 1)


def with_timeline(rank, n):
    assert bf.timeline_start_activity("x", "early") is False
    bf.init()
    assert bf.timeline_start_activity("x", "gradient computation") is True
    bf.neighbor_allreduce(torch.ones(3), name="averaged")
    assert bf.timeline_end_activity("x") is True
    assert bf.timeline_end_activity("x") is False
    with bf.timeline_context("y", "some activity"):
        torch.ones(3).add(1)
    model = torch.nn.Linear(2, 1)
    optimizer = bf.DistributedAdaptWithCombineOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model
    )
    assert optimizer.turn_on_timeline()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert optimizer.turn_off_timeline()
    bf.shutdown()


def test_timeline(tmp_path):
    run_ranks(with_timeline, 2, env={"BLUEFOG_TIMELINE": f"{tmp_path}/trace_"})
    for rank in range(2):
        trace = json.loads((tmp_path / f"trace_{rank}.json").read_text())
        names = {event.get("name") for event in trace["traceEvents"]}
        assert names >= {
            "x: gradient computation",
            "y: some activity",
            "neighbor_allreduce.averaged: ENQUEUE_NEIGHBOR_ALLREDUCE",
            "model: FORWARD",
            "model: GRADIENT COMPT.",
        }
        assert "x: early" not in names


def without_timeline(rank, n):
    bf.init()
    assert bf.timeline_start_activity("x", "anything") is False
    assert bf.timeline_end_activity("x") is False
    with bf.timeline_context("x", "anything"):
        started()
    with torch.profiler.profile() as profiler:  # the program's own will do
        assert bf.timeline_start_activity("x", "anything") is True
        bf.timeline_end_activity("x")
    assert "x: anything" in {event.name for event in profiler.events()}


def test_without_timeline():
    run_ranks(without_timeline, 1)
