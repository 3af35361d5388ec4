"""Ranks with a GPU each, which is not always the current one: operations between neighbours."""

import warnings

import pytest
import torch
import torch.distributed as dist
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import FLOATS, assert_same, attempt, dense, exact_weights, value_of

import bluefog_pg as bf
import bluefog_pg.torch as bluefog
from bluefog_pg.topology import recv_weights

pytestmark = needs_cuda_module
SHAPE = (3, 1001)


def start(rank, own, current, bind):
    """Makes the default group; returns the device of the rank's tensors."""
    warnings.filterwarnings("ignore", "the weights of rank")
    device = torch.device("cuda", rank)
    if current:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "bluefog",
        device_id=device if bind else None,
        pg_options=bf.BluefogOptions(own_communicator=own),
    )
    return device


def operations(rank, n, device, group=None):
    """On this device each gives what its formula says, and on the CPU in the same group."""
    graph = exact_weights(bf.exponential(n))
    bf.set_topology(graph, group=group)
    for dtype in FLOATS:
        x, expected = value_of(rank, SHAPE, dtype).to(device), dense(graph, rank, SHAPE, dtype)
        y = bf.neighbor_allreduce(x, group=group)
        work = bf.neighbor_allreduce(x, group=group, async_op=True)
        work.wait()
        shared = bf.empty(SHAPE, dtype=dtype, device=device, group=group).copy_(x)
        in_place = bf.neighbor_allreduce(shared, group=group)
        for result in (y, work.get_future().value()[0], in_place):
            assert result.device == device
            assert_same(result.cpu(), expected)
    gathered = bf.neighbor_allgather(x, group=group)
    sources = list(recv_weights(graph, rank)[1])
    assert gathered.device == device
    assert_same(gathered.cpu(), torch.cat([value_of(j, SHAPE, dtype) for j in sources]))
    x = value_of(rank, SHAPE)
    assert_same(bf.neighbor_allreduce(x, group=group), dense(graph, rank, SHAPE))


def of_neighbours(rank, n, own, current, bind):
    device = start(rank, own, current, bind)
    operations(rank, n, device)
    if bind:  # which split_group wants; in torch < 2.14 all ranks have to know the same groups
        half = dist.split_group(split_ranks=[[0, 3], [1, 2]])
        assert (dist.get_rank(half) == 0) == (rank in (0, 1))
        operations(dist.get_rank(half), 2, device, half)
        x = value_of(rank, (3,))
        dist.all_reduce(x, group=half)  # the same group's side for the CPU
        assert_same(x, value_of(rank, (3,)) + value_of(3 - rank, (3,)))
    part = dist.new_group([0, 2, 3], backend="bluefog")
    if rank != 1:
        operations(dist.get_rank(part), 3, device, part)
    dist.barrier()
    dist.barrier(device_ids=[rank])
    assert torch.cuda.current_device() == (rank if current else 0)


@pytest.mark.parametrize("own", [False, True], ids=["torch's communicator", "own communicator"])
@pytest.mark.parametrize("case", ["current", "bound", "neither"])
def test_operations_of_neighbours(own, case):
    """bound: by init_process_group(device_id=). But for the first, 0 is current on all ranks."""
    run_ranks(of_neighbours, 4, own, case == "current", case == "bound")


def two_devices(rank, n, own, refusal):
    """A group serves the device of its first operation, and goes on when it has refused others."""
    start(rank, own, current=True, bind=False)
    bf.set_topology(exact_weights(bf.ring(n)))
    for index in (rank, rank + n, rank):
        x = value_of(rank, SHAPE).to(torch.device("cuda", index))
        if index == rank:
            y = bf.neighbor_allreduce(x)
            assert y.device == x.device
            assert_same(y.cpu(), dense(bf.get_topology(), rank, SHAPE))
        else:
            error = attempt(bf.neighbor_allreduce, x)
            words = refusal.format(first=f"cuda:{rank}", other=f"cuda:{index}")
            assert words in str(error), repr(error)


@pytest.mark.parametrize(
    "own, new_engine, refusal",
    [
        (False, "1", "Expected tensor on {first} but found tensor on {other}"),
        (False, "0", "collective on tensor not on device passed to init_process_group"),
        (True, "1", "communicator is on {first}; it cannot serve {other} too"),
    ],
    ids=["torch's communicator", "its old engine", "own communicator"],
)
def test_tensors_on_a_second_device(own, new_engine, refusal):
    """The words are torch's, and ours."""
    if new_engine == "1" and not own and not hasattr(dist.distributed_c10d, "ProcessGroupNCCL2"):
        pytest.skip("this torch has the old engine only")
    run_ranks(two_devices, 2, own, refusal, gpus=4, env={"TORCH_DIST_USE_NCCL2": new_engine})


def bluefogs_names(rank, n):
    """Machines of two ranks; pairs, of whom nobody else needs to know."""
    bluefog.init(local_size=2)
    torch.cuda.set_device(rank)
    x = value_of(rank, SHAPE).cuda()
    machine = rank // 2
    y = bluefog.hierarchical_neighbor_allreduce(
        x,
        self_weight=0.25,
        src_machine_weights={1 - machine: 0.5},
        dst_machine_weights=[1 - machine],
    )
    means = [(value_of(2 * m, SHAPE) + value_of(2 * m + 1, SHAPE)) / 2 for m in range(2)]
    assert y.device == x.device
    assert_same(y.cpu(), 0.25 * means[machine] + 0.5 * means[1 - machine])
    partner = 3 - rank
    y = bluefog.pair_gossip(x, partner)
    assert y.device == x.device
    assert_same(y.cpu(), (value_of(rank, SHAPE) + value_of(partner, SHAPE)) / 2)
    if rank in (0, 3):  # the communicator is there by now
        y = bluefog.pair_gossip(x, partner, self_weight=0.25, pair_weight=0.5)
        assert_same(y.cpu(), 0.25 * value_of(rank, SHAPE) + 0.5 * value_of(partner, SHAPE))
    bluefog.shutdown()


def test_machines_and_pairs():
    run_ranks(bluefogs_names, 4)
