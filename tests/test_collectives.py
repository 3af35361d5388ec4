"""Standard collectives through "bluefog": in every form that c10d has, they are those of Gloo."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from ranks import run_ranks
from support import attempt, averages, start, value_of

from bluefog_pg.group import backend_of

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))

# Each function yields results, which are compared with those of a Gloo group.


def reductions(rank, n, group):
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT):
        x = value_of(rank, (2, 3))
        assert dist.all_reduce(x, op, group=group) is None
        yield x
        x = value_of(rank, (2, 3)).long()
        dist.reduce(x, dst=1, op=op, group=group)
        yield x if rank == 1 else None
    x = value_of(rank, (5,), torch.bfloat16)
    work = dist.all_reduce(x, group=group, async_op=True)
    assert work.wait(timedelta(seconds=60)) and work.is_completed()
    yield x, work.get_future().wait()
    xs = [value_of(rank, (i,)) for i in range(1, 4)]
    dist.all_reduce_coalesced(xs, group=group)
    yield xs
    with dist._coalescing_manager(group):
        for x in xs:
            dist.all_reduce(x, group=group)
    yield xs
    with dist._coalescing_manager(group, async_ops=True) as manager:
        for x in xs:
            dist.all_reduce(x, group=group)
    manager.wait()
    yield xs
    yield str(attempt(dist.all_reduce, x, dist.ReduceOp.AVG, group))
    sparse = torch.eye(n).to_sparse() * (rank + 1)
    dist.all_reduce(sparse, group=group)
    yield sparse.to_dense()
    parts = [value_of(rank + j, (4,)) for j in range(n)]
    out = torch.empty(4)
    dist.reduce_scatter(out, parts, group=group)
    yield out.clone()
    dist.reduce_scatter_tensor(out, torch.cat(parts), group=group)
    yield out


def movements(rank, n, group):
    x = value_of(rank, (2, 3))
    dist.broadcast(x, src=1, group=group)
    yield x
    x = value_of(rank, (3,))
    out = [torch.empty(3) for _ in range(n)]
    dist.all_gather(out, x, group=group)
    yield out
    flat = torch.empty(3 * n)
    dist.all_gather_into_tensor(flat, x, group=group)
    yield flat
    dist.gather(x, out if rank == 2 else None, dst=2, group=group)
    yield out
    dist.scatter(x, [value_of(j, (3,)) * 2 for j in range(n)] if rank == 0 else None, group=group)
    yield x
    outs = [torch.zeros(3) for _ in range(n)]
    parts = [value_of(rank * n + j, (3,)) for j in range(n)]
    yield str(attempt(dist.all_to_all, outs, parts, group=group)), outs  # not in every Gloo
    ins = [value_of(rank * n + j, (rank + j,)) for j in range(n)]
    outs = [torch.empty(rank + j) for j in range(n)]
    whole, counts = torch.empty(sum(map(len, outs))), [len(part) for part in ins]
    dist.all_to_all_single(whole, torch.cat(ins), counts, counts, group=group)
    yield whole
    dist.all_to_all_single(flat, value_of(rank, (3 * n,)), group=group)
    yield flat
    wide = [torch.empty(n * i) for i in range(1, 4)]

    def coalesced():
        with dist._coalescing_manager(group, async_ops=True) as manager:
            for i, out in enumerate(wide, 1):
                dist.all_gather_into_tensor(out.zero_(), value_of(rank, (i,)), group=group)
        manager.wait()
        return wide

    yield outcome(coalesced)


def objects(rank, n, group):
    mine = {"rank": rank, "text": "x" * rank}
    out = [None] * n
    dist.all_gather_object(out, mine, group=group)
    yield out
    out = [None] * n
    dist.gather_object(mine, out if rank == 0 else None, dst=0, group=group)
    yield out
    out = [mine, rank]
    dist.broadcast_object_list(out, src=2, group=group)
    yield out
    out = [None]
    dist.scatter_object_list(out, [mine] * n if rank == 1 else None, src=1, group=group)
    yield out


def pairs(rank, n, group):
    right, left = (rank + 1) % n, (rank - 1) % n
    x, y = value_of(rank, (1000,)), torch.empty(1000)
    if rank % 2:
        dist.send(x, right, group=group, tag=7)
        assert dist.recv(y, left, group=group, tag=7) == left
    else:
        assert dist.recv(y, left, group=group, tag=7) == left
        dist.send(x, right, group=group, tag=7)
    yield y
    sent = dist.isend(x, right, group=group, tag=5)
    assert dist.recv(y, group=group, tag=5) == left  # from anyone
    sent.wait()
    ops = [dist.P2POp(dist.isend, x, peer, group) for peer in (left, right)]
    got = [torch.empty(1000) for _ in ops]
    ops += [
        dist.P2POp(dist.irecv, y, peer, group) for y, peer in zip(got, (right, left), strict=True)
    ]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    yield got
    out = [rank, "hello"]
    if rank % 2:
        dist.send_object_list(out, right, group=group)
    else:
        dist.recv_object_list(out, left, group=group)
    yield out
    dist.barrier(group=group)
    dist.barrier(group=group, async_op=True).wait()


def functional_forms(rank, n, group):
    x = value_of(rank, (n, 2))
    for form in [
        lambda: functional.all_reduce(x, "sum", group),
        lambda: functional.all_gather_tensor(x, 0, group),
        lambda: functional.reduce_scatter_tensor(x, "sum", 0, group),
        lambda: functional.all_to_all_single(x, None, None, group),
        lambda: functional.broadcast(x, 1, group),
        lambda: functional.all_reduce_coalesced([x, x + 1], "max", group),
        lambda: functional.all_gather_into_tensor_coalesced([x, x + 1], group),
        lambda: functional.reduce_scatter_tensor_coalesced([x, x + 1], "sum", [0, 0], group),
    ]:
        yield outcome(form)


def outcome(form):
    """Its tensors; or "RuntimeError": torch 2.11 has not all forms under DETAIL."""
    results = []
    error = attempt(lambda: results.append(form()))
    if error is not None:
        return type(error).__name__
    (result,) = results
    tensors = result if isinstance(result, list) else [result]
    return [functional.wait_tensor(y).clone() for y in tensors]


COLLECTIVES = [reductions, movements, objects, pairs, functional_forms]


def same_as_gloo(rank, n):
    start()
    gloo = dist.new_group(backend="gloo")
    assert type(backend_of()).__name__ == "BluefogBackend"
    refused = 0
    for collective in COLLECTIVES:
        ours = list(collective(rank, n, dist.group.WORLD))
        theirs = list(collective(rank, n, gloo))
        assert len(ours) == len(theirs) > 0
        for mine, other in zip(ours, theirs, strict=True):
            assert listed(mine) == listed(other)
            refused += mine == "RuntimeError"
        averages(rank, n)  # in between, as a training step would
    return refused


def listed(value):
    """The value with tensors as (dtype, nested list), which == compares."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    return list(map(listed, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("debug", ["OFF", "DETAIL"])
def test_collectives_are_gloos(debug):
    """DETAIL wraps the backend and checks all calls of all ranks against each other."""
    refused = run_ranks(same_as_gloo, 4, env={"TORCH_DISTRIBUTED_DEBUG": debug})
    assert refused == [0] * 4 or (debug == "DETAIL" and TORCH < (2, 14))
