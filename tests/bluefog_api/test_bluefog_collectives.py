"""allreduce, broadcast, allgather, neighbor_allgather, pair_gossip, in all their forms."""

import numpy as np
import pytest
import torch
from bluefog_cases import SHAPES, UNIT, assert_close, mixed, raises, started, x_of
from ranks import run_ranks
from support import start

import bluefog_pg.torch as bf

INTEGERS = [torch.uint8, torch.int8, torch.int32, torch.int64]
ANY = [*UNIT, *INTEGERS, torch.int16, torch.bool, torch.complex64]


def marked(rank, shape, dtype):
    """Values that say which rank they are of, also as booleans."""
    return (torch.arange(torch.Size(shape).numel()).add(rank) % 3).reshape(shape).to(dtype)


def allreduces(rank, n):
    started()
    for dtype in UNIT:
        for shape in SHAPES:
            x = x_of(rank, shape, dtype)
            total = mixed([1.0] * n, shape, dtype)
            assert_close(bf.allreduce(x, name="x"), total / n)
            assert_close(bf.allreduce(x, average=False), total)
            assert torch.equal(x, x_of(rank, shape, dtype))
            assert bf.allreduce_(x) is x
            assert_close(x, total / n)
            handle = bf.allreduce_nonblocking_(x, False)
            assert bf.synchronize(handle) is x
            assert_close(x, total, units=4 * n)
    for dtype in INTEGERS:
        x = marked(rank, (3, 4), dtype)
        total = sum(marked(r, (3, 4), dtype) for r in range(n))
        assert torch.equal(bf.allreduce(x, average=False), total)
        raises(AssertionError, lambda x=x: bf.allreduce(x))
    for dtype in (torch.bool, torch.complex64):
        raises(ValueError, lambda d=dtype: bf.allreduce(torch.ones(2).to(d)), "not supported")
    strided = x_of(rank, (3, 4))
    bf.allreduce_(strided[:, ::2])
    assert_close(strided[:, ::2], mixed([1 / n] * n, (3, 4))[:, ::2])
    assert torch.equal(strided[:, 1::2], x_of(rank, (3, 4))[:, 1::2])
    parameter = torch.nn.Parameter(x_of(rank, (5,)))
    assert_close(bf.allreduce(parameter), mixed([1 / n] * n, (5,)))
    assert bf.allreduce_(parameter) is parameter


def half_precision_is_summed_in_single(rank, n):
    """2048 + 0.3 - 2048, which is 0 in half precision, in whatever order around the ring."""
    started()
    values = {0: 2048.0, 2: -2048.0}
    x = torch.full((64,), values.get(rank, 0.3), dtype=torch.float16)
    small = torch.tensor(0.3).half().float()
    expected = torch.full((64,), (n - 2) * small.item()).half()
    assert_close(bf.allreduce(x, average=False), expected, units=1)


def allreduces_of_one_machine(rank, n):
    started(local_size=2)
    x = x_of(rank, (3, 4))
    first = rank - rank % 2
    total = mixed({first: 1.0, first + 1: 1.0}, (3, 4))
    assert_close(bf.allreduce(x, is_hierarchical_local=True), total / 2)
    assert_close(bf.allreduce(x, average=False, is_hierarchical_local=True), total)
    if rank in (0, 1):  # other machines need not join in
        handle = bf.allreduce_nonblocking_(x, True, True)
        assert bf.synchronize(handle) is x
        assert_close(x, total / 2)
    bf.barrier()


def broadcasts(rank, n):
    started()
    for dtype in ANY:
        for root, shape in enumerate(SHAPES):
            x = marked(rank, shape, dtype)
            expected = marked(root, shape, dtype)
            assert torch.equal(bf.broadcast(x, root), expected)
            assert torch.equal(bf.wait(bf.broadcast_nonblocking(x, root_rank=root)), expected)
            assert torch.equal(x, marked(rank, shape, dtype))
            assert bf.broadcast_(x, root) is x and torch.equal(x, expected)
    x = x_of(rank, (3, 4))
    assert bf.wait(bf.broadcast_nonblocking_(x.T, 1)).shape == (4, 3)
    assert torch.equal(x, x_of(1, (3, 4)))
    raises(ValueError, lambda: bf.broadcast(x, n), str(n))


def allgathers(rank, n):
    started()
    for dtype in ANY:
        x = marked(rank, (3, 4), dtype)
        expected = torch.cat([marked(r, (3, 4), dtype) for r in range(n)])
        assert torch.equal(bf.allgather(x), expected)
    uneven = bf.synchronize(bf.allgather_nonblocking(x_of(rank, (rank, 2)), name="uneven"))
    assert torch.equal(uneven, torch.cat([x_of(r, (r, 2)) for r in range(n)]))
    assert torch.equal(bf.allgather(torch.tensor(rank)), torch.arange(n))
    raises(ValueError, lambda: bf.allgather(torch.ones(1, 1 + rank % 2)))
    bf.barrier()
    assert torch.equal(bf.allgather(torch.tensor([rank])), torch.arange(n))


def neighbor_allgathers(rank, n):
    started(graph=bf.StarGraph(n, center_rank=1))
    sources = bf.in_neighbor_ranks()
    assert sources == ([r for r in range(n) if r != 1] if rank == 1 else [1])
    for dtype in ANY:
        y = bf.neighbor_allgather(marked(rank, (3, 4), dtype), name="x")
        assert torch.equal(y, torch.cat([marked(r, (3, 4), dtype) for r in sources]))
    y = bf.synchronize(bf.neighbor_allgather_nonblocking(x_of(rank, (rank + 1, 2))))
    assert torch.equal(y, torch.cat([x_of(r, (r + 1, 2)) for r in sources]))
    # The order of src_ranks, whatever it is, and numpy's arrays.
    ahead = [(rank + hop) % n for hop in (2, 1)]
    behind = np.array([(rank - hop) % n for hop in (1, 2)])
    y = bf.neighbor_allgather(x_of(rank, (3,)), src_ranks=ahead, dst_ranks=behind)
    assert torch.equal(y, torch.cat([x_of(r, (3,)) for r in ahead]))
    y = bf.neighbor_allgather(x_of(rank, (3, 2)), src_ranks=[], dst_ranks=[])
    assert y.shape == (0, 2)
    twice = dict(src_ranks=[ahead[0]] * 2, dst_ranks=behind)
    raises(ValueError, lambda: bf.neighbor_allgather(torch.ones(1), **twice), "twice")
    raises(ValueError, lambda: bf.neighbor_allgather(torch.ones(1), src_ranks=[0]))
    wrong = dict(src_ranks=ahead, dst_ranks=behind if rank else [])
    raises(ValueError, lambda: bf.neighbor_allgather(torch.ones(1), **wrong), "rank 0")


def gossip(rank, n):
    started()
    partner = rank ^ 1
    for dtype in UNIT:
        x = x_of(rank, (3, 4), dtype)
        y = bf.pair_gossip(x, partner)
        assert_close(y, mixed({rank: 0.5, partner: 0.5}, (3, 4), dtype))
        if rank < 2:  # the others are not needed
            y = bf.pair_gossip(x, target_rank=partner, self_weight=0.75, pair_weight=-1.0)
            assert_close(y, mixed({rank: 0.75, partner: -1.0}, (3, 4), dtype))
            bf.wait(bf.pair_gossip_nonblocking(x, partner, name="again"))
    raises(ValueError, lambda: bf.pair_gossip(torch.ones(1), partner, self_weight=0.5))
    raises(ValueError, lambda: bf.pair_gossip(torch.ones(1), rank))
    raises(ValueError, lambda: bf.pair_gossip(torch.ones(1).int(), partner))


def inferred_ranks(rank, n):
    """0 sends to 1 and 2, 1 to 0: BlueFog's matrix had columns that do not sum to 1."""
    started()
    sends = {0: [2, 1], 1: [0]}
    receives = {1: [0], 2: [0], 0: [1]}
    matrix = np.eye(n)
    for src, dst in [(0, 2), (0, 1), (1, 0)]:
        matrix[src, dst] = 1
    matrix /= matrix.sum(axis=0)
    sources, of_sends = bf.InferSourceFromDestinationRanks(sends.get(rank, []), True)
    assert sources == receives.get(rank, [])
    destinations, of_receives = bf.InferDestinationFromSourceRanks(
        receives.get(rank, []), construct_adjacency_matrix=True
    )
    assert destinations == sorted(sends.get(rank, []))
    assert np.array_equal(of_sends, matrix) and np.array_equal(of_receives, matrix)
    assert bf.InferSourceFromDestinationRanks([(rank + 1) % n]) == [(rank - 1) % n]
    for wrong in ([rank], [n], [(rank + 1) % n] * 2, [0.5], [True]):
        raises(AssertionError, lambda w=wrong: bf.InferSourceFromDestinationRanks(w))


CHECKS = (
    allreduces,
    half_precision_is_summed_in_single,
    broadcasts,
    allgathers,
    neighbor_allgathers,
    gossip,
    inferred_ranks,
)


def run_all(rank, n):
    allreduces_of_one_machine(rank, n)
    for check in CHECKS:
        check(rank, n)


@pytest.mark.parametrize("n", [4, 8])
def test_collectives(n):
    run_ranks(run_all, n, timeout=120)


def run_without_shared_memory(rank, n):
    """What ranks on different hosts do."""
    start("gloo")
    for check in (allreduces, half_precision_is_summed_in_single, broadcasts, allgathers):
        check(rank, n)


def test_between_hosts():
    run_ranks(run_without_shared_memory, 4, timeout=120)
