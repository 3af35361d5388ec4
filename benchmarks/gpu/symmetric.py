"""Ranks that read each other's memory in place, on one GPU: torch's symmetric memory.

The processes take turns on the GPU, a time slice each, and a rank waits for the other one's. So
times of whole exchanges are those of the time slices as well; the kernel alone, which reads the
neighbour's memory while the neighbour waits on the host, is not held up by that.
"""

import statistics
import time
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

import bluefog_pg as bf
from bluefog_pg.group import backend_of
from bluefog_pg.topology import recv_weights
from gpu.launch import Rank, run_ranks
from gpu.reference import FLOATS, count_wrong, values
from gpu.rows import emit, failed, measured, parser, status

TARGET = 0.8
SAMPLES, CALLS = 7, 10
LATE = 50.0  # ms
SHAPE = (65_537,)
ENVIRONMENT = {"TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1"}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    arguments.add_argument("--megabytes", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=45)
    args = arguments.parse_args()
    rows = []
    for size in args.ranks:
        name, numel = f"symmetric memory of {size} ranks", args.megabytes * 10**6 // 4
        given: dict[str, Any] = {"seconds": args.seconds, "environment": ENVIRONMENT}
        rows += [emit(row) for row in run_ranks(name, checks, size, numel, **given)]
    return status(rows)


def checks(rank: Rank, numel: int) -> None:
    many = f"{rank.size} ranks"
    bf.set_topology(bf.ring(rank.size))
    bf.empty(4, device=rank.device.torch)
    refusal = backend_of().symmetric_memory_refusal
    if refusal and rank.rank == 0:
        rank.tell(failed(f"memory is shared, {many}", refusal))
    # Also where it is refused: results are to be right then, too.
    for name, topology in (
        ("ring", bf.ring(rank.size)),
        ("one-peer exponential", bf.one_peer_exponential(rank.size)),
    ):
        check = f"{name}, {many}, {'not in' if refusal else 'in'} shared memory"
        rank.check(check, lambda topology=topology: _right(rank, topology))
    rank.check(f"two streams, {many}", lambda: _two_streams(rank))
    rank.check(f"an early stream and a late one, {many}", lambda: _early_and_late(rank))
    if rank.size == 2:
        _measure_exchange(rank, numel)
        if not refusal:
            _measure_kernel(rank, numel)


def _shared(rank: Rank, shape: tuple[int, ...], dtype: torch.dtype, step: int) -> torch.Tensor:
    tensor = bf.empty(shape, dtype=dtype, device=rank.device.torch)
    return tensor.copy_(values(shape, dtype, step, rank.rank))


def _right(rank: Rank, topology: Any) -> int:
    """New results, results in place that are averaged again, and a slice."""
    bf.set_topology(topology)
    wrong = 0
    for dtype in FLOATS:
        x = _shared(rank, SHAPE, dtype, 1)
        other = _shared(rank, SHAPE, dtype, 2)
        for step in range(3):
            terms = _terms(rank, topology, step)
            result = bf.neighbor_allreduce(x, step=step)
            wrong += count_wrong(result, [(w, values(SHAPE, dtype, 1, j)) for j, w in terms])
            part = bf.neighbor_allreduce(x[1:1000], step=step)
            wrong += count_wrong(part, [(w, values(SHAPE, dtype, 1, j)[1:1000]) for j, w in terms])
        work = bf.neighbor_allreduce(other, out=other, step=0, async_op=True)
        work.wait()
        terms = _terms(rank, topology, 0)
        wrong += count_wrong(other, [(w, values(SHAPE, dtype, 2, j)) for j, w in terms])
    # 20 in place, each of which reads what neighbours have just written: in the end, the mean.
    x = _shared(rank, SHAPE, torch.float64, 3)
    for step in range(20):
        bf.neighbor_allreduce(x, out=x, step=step)
    if rank.size <= 4:  # the second eigenvalue is 1/3 at most, in absolute value
        mean = sum(values(SHAPE, torch.float64, 3, j) for j in range(rank.size)) / rank.size
        wrong += int((~((x.cpu() - mean).abs() < 1e-7)).sum())
    return wrong


def _two_streams(rank: Rank) -> int:
    """Operations in a row on changing streams, and each result is read before the next."""
    graph = bf.ring(rank.size)
    bf.set_topology(graph)
    x = _shared(rank, SHAPE, torch.float32, 0)
    others = [
        values(SHAPE, torch.float32, step + 1, rank.rank).to(rank.device.torch)
        for step in range(10)
    ]
    rank.device.synchronize()
    results = []
    for step in range(10):
        with rank.device.side_stream():
            work = bf.neighbor_allreduce(x, async_op=True)
        work.wait()
        x.copy_(others[step])
        results.append(work.result()[0])
    return sum(
        count_wrong(
            result,
            [(w, values(SHAPE, torch.float32, step, j)) for j, w in _terms(rank, graph, step)],
        )
        for step, result in enumerate(results)
    )


def _early_and_late(rank: Rank) -> int:
    """Two operations, each on a stream of its own, which are late on different ranks. Their memory,
    and with it the signals, are of one allocation."""
    graph = bf.ring(rank.size)
    bf.set_topology(graph)
    tensors = bf.empty((2, *SHAPE), device=rank.device.torch).zero_()
    new = [values(SHAPE, torch.float32, step + 2, rank.rank).to(tensors) for step in (0, 1)]
    rank.device.synchronize()
    _meet_on_host()
    results = []
    for step, (x, value) in enumerate(zip(tensors, new, strict=True)):
        with rank.device.side_stream():
            if rank.rank % 2 == step:
                rank.device.be_busy(LATE)
            x.copy_(value)
            results.append(bf.neighbor_allreduce(x))
    rank.device.synchronize()
    return sum(
        count_wrong(
            result,
            [(w, values(SHAPE, torch.float32, step + 2, j)) for j, w in _terms(rank, graph, step)],
        )
        for step, result in enumerate(results)
    )


def _terms(rank: Rank, topology: Any, step: int) -> list[tuple[int, float]]:
    graph = topology(step) if isinstance(topology, bf.Schedule) else topology
    own, sources = recv_weights(graph, rank.rank)
    return [(rank.rank, own), *sources.items()]


# ---- Times, of two ranks


def _measure_exchange(rank: Rank, numel: int) -> None:
    bf.set_topology(bf.ring(2))
    x = bf.empty(numel, device=rank.device.torch).normal_()
    y = torch.empty_like(x)
    exchanges, copies = [], []
    bf.neighbor_allreduce(x, out=y)
    for _ in range(SAMPLES):
        exchanges.append(_seconds(rank, lambda: bf.neighbor_allreduce(x, out=y)))
        copies.append(_seconds(rank, lambda: y.copy_(x)))
    if rank.rank:
        return
    exchange, copy = statistics.median(exchanges), statistics.median(copies)
    name = f"exchange of {numel * 4 // 10**6} MB by two ranks at once"
    rank.tell(_share(name, 3 * numel * 4 / exchange, 2 * numel * 4 / copy))


def _measure_kernel(rank: Rank, numel: int) -> None:
    """Rank 0 averages with the memory of rank 1, which waits on the host."""
    import torch.distributed._symmetric_memory as symmetric_memory

    x = bf.empty(numel, device=rank.device.torch).normal_()
    y = torch.empty_like(x)
    try:
        of_peers = symmetric_memory.rendezvous(x, dist.group.WORLD.group_name)
        theirs = of_peers.get_buffer(1 - rank.rank, [numel], torch.float32)
    except Exception as error:  # of torch's API, which is private
        rank.tell({"check": "the kernel alone", "why_not": f"{type(error).__name__}: {error}"})
        return
    rank.device.synchronize()
    _meet_on_host()
    if rank.rank == 0:
        combine = partial(torch.ops.bluefog.combine, [y], [x], [theirs], [0.5, 0.5])
        times = []
        for call in (combine, partial(y.copy_, x)):
            call()
            rank.device.synchronize()
            times.append(
                statistics.median(rank.device.milliseconds(call) / 1e3 for _ in range(SAMPLES))
            )
        name = f"the kernel alone, {numel * 4 // 10**6} MB with a neighbour's memory"
        rank.tell(_share(name, 3 * numel * 4 / times[0], 2 * numel * 4 / times[1]))
    _meet_on_host()


def _seconds(rank: Rank, call: Any) -> float:
    """Of a call, on average over some."""
    rank.device.synchronize()
    _meet_on_host()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    rank.device.synchronize()
    return (time.perf_counter() - start) / CALLS


def _meet_on_host() -> None:
    dist.all_reduce(torch.zeros(1))


def _share(name: str, ours: float, copied: float) -> dict[str, Any]:
    figures = {"GB_per_s": round(ours / 1e9, 1), "copy_GB_per_s": round(copied / 1e9, 1)}
    share = round(ours / copied, 3)
    return measured(name, share, "of a copy's bandwidth", at_least=TARGET, **figures)


if __name__ == "__main__":
    raise SystemExit(main())
