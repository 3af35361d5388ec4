"""What a call costs the host, and 64 MB in all, beside torch's own sends and receives."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

import bluefog_pg as bf
from gpu.launch import Rank, run_ranks
from gpu.rows import emit, measured, parser, status

SMALL = 1 << 8  # elements
TARGET = 20  # microseconds of the host for a small one
CALLS = 20  # in a row, which the GPU's queue holds
SAMPLES = 8

Ways = dict[str, Callable[[torch.Tensor], Any]]


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--megabytes", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=60)
    args = arguments.parse_args()
    given = {"seconds": args.seconds}
    rows = run_ranks("enqueue", measure, 2, args.megabytes * 10**6 // 4, **given)
    return status([emit(row) for row in rows])


def measure(rank: Rank, large: int) -> None:
    """A ring of two: each has one neighbour."""
    bf.set_topology(bf.ring(rank.size))
    own = dist.new_group(backend="bluefog", pg_options=bf.BluefogOptions(own_communicator=True))
    bf.set_topology(bf.ring(rank.size), group=own)
    stock = dist.new_group(backend="nccl")
    ways = {
        "neighbor_allreduce": bf.neighbor_allreduce,
        "neighbor_allreduce, own communicator": partial(bf.neighbor_allreduce, group=own),
        "batch_isend_irecv and torch._foreach": partial(by_torch, peer=1 - rank.rank, group=stock),
    }
    rank.check("right", lambda: _wrong(rank, ways))
    for asynchronous in (False, True):
        _measure_calls(rank, ways, asynchronous)
    _measure_large(rank, ways, large)


def by_torch(x: torch.Tensor, peer: int, group: Any) -> torch.Tensor:
    """What the same average takes with what torch has."""
    arrived = torch.empty_like(x)
    pair = [
        dist.P2POp(dist.isend, x, peer, group=group),
        dist.P2POp(dist.irecv, arrived, peer, group=group),
    ]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
    sums = torch._foreach_mul([x], 0.5)
    torch._foreach_add_(sums, [arrived], alpha=0.5)
    return sums[0]


def _wrong(rank: Rank, ways: Ways) -> int:
    x = torch.full([SMALL], float(rank.rank), device=rank.device.torch)
    return sum(int((way(x) != 0.5).sum()) for way in ways.values())


def _measure_calls(rank: Rank, ways: Ways, asynchronous: bool) -> None:
    """Medians of single calls, of a queue that has room; the ways take turns."""
    x = torch.randn(SMALL, device=rank.device.torch)
    if asynchronous:
        ways = {"neighbor_allreduce, async_op": partial(bf.neighbor_allreduce, async_op=True)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(SAMPLES):
        for name, way in ways.items():
            _meet(rank)
            for _ in range(CALLS):
                start = time.perf_counter()
                kept = way(x)
                times[name].append(1e6 * (time.perf_counter() - start))
                if asynchronous:
                    kept.wait()
    _meet(rank)
    if rank.rank == 0:
        for name, of_calls in times.items():
            of_ours = {"at_most": TARGET} if name.startswith("neighbor") else {}
            value = round(statistics.median(of_calls), 1)
            rank.tell(measured(f"host per call, {name}", value, "us", **of_ours))


def _measure_large(rank: Rank, ways: Ways, numel: int) -> None:
    x = torch.randn(numel, device=rank.device.torch)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for sample in range(SAMPLES + 1):
        for name, way in ways.items():
            _meet(rank)
            start = time.perf_counter()
            way(x)
            rank.device.synchronize()
            if sample:  # the first one connects
                times[name].append(1e3 * (time.perf_counter() - start))
    _meet(rank)
    if rank.rank:
        return
    medians = {name: statistics.median(of_calls) for name, of_calls in times.items()}
    theirs = medians["batch_isend_irecv and torch._foreach"]
    for name, median in medians.items():
        rank.tell(
            measured(
                f"{numel * 4 // 10**6} MB, {name}",
                round(median, 3),
                "ms",
                of_torchs_time=round(median / theirs, 3),
            )
        )


def _meet(rank: Rank) -> None:
    rank.device.synchronize()
    dist.barrier()
    rank.device.synchronize()


if __name__ == "__main__":
    raise SystemExit(main())
