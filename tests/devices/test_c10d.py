"""torch.distributed's own calls through backend "bluefog", on GPUs: the CPU's results."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from support import assert_same, value_of

import bluefog_pg as bf

pytestmark = needs_cuda_module
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def reductions(rank, n, device):
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT):
        for dtype in (torch.float32, torch.int64):
            x = value_of(rank, (2, 3), dtype).to(device)
            dist.all_reduce(x, op)
            yield x
            x = value_of(rank, (2, 3), dtype).to(device)
            dist.reduce(x, dst=1, op=op)
            yield x if rank == 1 else None
    x = value_of(rank, (5,), torch.bfloat16).to(device)
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    yield x
    xs = [value_of(rank, (i,)).to(device) for i in range(1, 4)]
    with dist._coalescing_manager(device=device, async_ops=True) as manager:
        for x in xs:
            dist.all_reduce(x)
    manager.wait()
    yield xs
    parts = [value_of(rank + j, (4,)).to(device) for j in range(n)]
    out = torch.empty(4, device=device)
    dist.reduce_scatter(out, parts)
    yield out.clone()
    dist.reduce_scatter_tensor(out, torch.cat(parts))
    yield out
    yield functional.all_reduce(value_of(rank, (n, 2)).to(device), "sum", dist.group.WORLD) + 0


def movements(rank, n, device):
    x = value_of(rank, (2, 3)).to(device)
    dist.broadcast(x, src=1)
    yield x
    x = value_of(rank, (3,)).to(device)
    out = [torch.empty(3, device=device) for _ in range(n)]
    dist.all_gather(out, x)
    yield out
    flat = torch.empty(3 * n, device=device)
    dist.all_gather_into_tensor(flat, x)
    yield flat
    dist.gather(x, out if rank == 2 else None, dst=2)
    yield out
    dist.scatter(x, [value_of(j, (3,)).to(device) * 2 for j in range(n)] if rank == 0 else None)
    yield x
    ins = [value_of(rank * n + j, (rank + j,)).to(device) for j in range(n)]
    counts = [len(part) for part in ins]
    whole = torch.empty(sum(counts), device=device)
    dist.all_to_all_single(whole, torch.cat(ins), counts, counts)
    yield whole
    yield functional.all_gather_tensor(x, 0, dist.group.WORLD) + 0
    objects = [None] * n
    dist.all_gather_object(objects, {"rank": rank, "text": "x" * rank})
    yield objects
    objects = [rank, "hello"]
    dist.broadcast_object_list(objects, src=2, device=device)
    yield objects


def pairs(rank, n, device):
    right, left = (rank + 1) % n, (rank - 1) % n
    x, y = value_of(rank, (1000,)).to(device), torch.empty(1000, device=device)
    if rank % 2:
        dist.send(x, right)
        dist.recv(y, left)
    else:
        dist.recv(y, left)
        dist.send(x, right)
    yield y
    got = [torch.empty(1000, device=device) for _ in range(2)]
    ops = [dist.P2POp(dist.isend, x, peer) for peer in (left, right)]
    ops += [dist.P2POp(dist.irecv, y, peer) for y, peer in zip(got, (right, left), strict=True)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    yield got
    dist.barrier()


def listed(value):
    """The value with tensors as (dtype, nested list), which == compares."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    return list(map(listed, value)) if isinstance(value, list | tuple) else value


def as_on_the_cpu(rank, n, bind):
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("bluefog", device_id=device if bind else None)
    bf.set_topology(bf.ring(n))
    for calls in (reductions, movements, pairs):
        with_gpu = calls(rank, n, device)
        for number, result in enumerate(calls(rank, n, torch.device("cpu"))):
            assert listed(next(with_gpu)) == listed(result), (calls.__name__, number)
            if number % 5 == 0:  # in between, as a training step would
                y = bf.neighbor_allreduce(torch.full((3,), float(rank), device=device))
                assert_same(y.cpu(), bf.neighbor_allreduce(torch.full((3,), float(rank))))
        assert next(with_gpu, None) is None
    x = torch.full((3,), float(rank), device=device)
    dist.all_reduce(x, dist.ReduceOp.AVG)  # NCCL has it
    assert x.tolist() == [(n - 1) / 2] * 3
    outs, ins = torch.zeros(n, 3, device=device), torch.full((n, 3), float(rank), device=device)
    dist.all_to_all(list(outs), list(ins))  # likewise
    assert outs[:, 0].tolist() == list(range(n))


@pytest.mark.parametrize("debug", ["OFF", "DETAIL"])
def test_collectives_are_the_cpus(debug):
    if debug == "DETAIL" and TORCH < (2, 14):
        pytest.skip("the wrapper of torch < 2.14 has no functional collectives")
    run_ranks(as_on_the_cpu, 4, debug == "OFF", env={"TORCH_DISTRIBUTED_DEBUG": debug})
