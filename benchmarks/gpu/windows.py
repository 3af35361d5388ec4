"""One-sided windows of 2 and 4 ranks on one GPU, in each kind of memory that they can be in."""

import time
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import bluefog_pg as bf
from gpu.launch import Rank, run_ranks
from gpu.rows import emit, parser, status
from gpu.symmetric import ENVIRONMENT

SIZES = (5, 100_003)
ROUNDS = 30
WAYS: dict[str, dict[str, Any]] = {
    "shared": {},
    "pinned": {"symmetric_memory": False},
    "messages": {"transport": "gloo"},
    "NCCL": {"symmetric_memory": False, "own_communicator": True},
}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    arguments.add_argument("--seconds", type=float, default=25)
    args = arguments.parse_args()
    rows = []
    for size in args.ranks:
        given: dict[str, Any] = {"seconds": args.seconds, "environment": ENVIRONMENT}
        found = run_ranks(f"windows of {size} ranks", checks, size, **given)
        rows += [emit(row) for row in found]
    return status(rows)


def checks(rank: Rank) -> None:
    for way, options in WAYS.items():
        group = dist.new_group(backend="bluefog", pg_options=bf.BluefogOptions(**options))
        bf.set_topology(bf.ring(rank.size), group=group)
        for name, check in CHECKS.items():
            rank.check(f"windows, {name}, {rank.size} ranks, {way}", partial(check, rank, group))
        dist.destroy_process_group(group)


def memory(rank: Rank, group: Any) -> int:
    with bf.Window(torch.zeros(4, device=rank.device.torch), "memory", group=group) as window:
        if rank.rank == 0:
            rank.tell({"check": "windows' memory", "memory": window.memory, "ranks": rank.size})
    return 0


def fence(window: bf.Window, group: Any) -> None:
    bf.win_fence(window.name, group=group)


def calls(rank: Rank, group: Any) -> int:
    """Each call once, on values that are exact in every dtype."""
    wrong = 0
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        for numel in SIZES:
            wrong += _calls(rank, group, dtype, numel)
    return wrong


def _calls(rank: Rank, group: Any, dtype: torch.dtype, numel: int) -> int:
    x = torch.full((numel,), 8 * (rank.rank + 1), dtype=dtype, device=rank.device.torch)
    wrong = 0

    def expect(found: torch.Tensor, value: float) -> None:
        nonlocal wrong
        wrong += int((found.cpu() != value).sum())

    with bf.Window(x, "calls", zero_init=True, group=group) as window:
        others = {j: 8 * (j + 1) for j in window.in_neighbors}
        ones = dict.fromkeys(others, 1.0)
        collect = partial(window.update, self_weight=1.0, neighbor_weights=ones)
        window.put(dst_weights=dict.fromkeys(window.out_neighbors, 2.0))
        fence(window, group)
        expect(collect(clone=True), 8 * (rank.rank + 1) + 2 * sum(others.values()))
        fence(window, group)  # what follows is not to be in that yet
        window.accumulate(async_op=True).wait()
        fence(window, group)
        expect(collect(reset=True, clone=True), 8 * (rank.rank + 1) + 3 * sum(others.values()))
        expect(collect(clone=True), 8 * (rank.rank + 1))
        fence(window, group)
        window.get()
        expect(collect(clone=True), 8 * (rank.rank + 1) + sum(others.values()))
        for j, value in others.items():
            expect(window.value_of(j)[0], value)
        fence(window, group)
        expect(window.update(self_weight=2.0, neighbor_weights={}), 16 * (rank.rank + 1))
        expect(x, 16 * (rank.rank + 1))
    return wrong


def push_sum(rank: Rank, group: Any) -> int:
    """Ranks at their own pace; in the end all have the mean."""
    bf.turn_on_win_ops_with_associated_p(group=group)
    x = torch.full((1000,), float(rank.rank), dtype=torch.float64, device=rank.device.torch)
    with bf.Window(x, "push-sum", zero_init=True, group=group) as window:
        share = 1 / (len(window.out_neighbors) + 1)
        to = dict.fromkeys(window.out_neighbors, share)
        for _ in range(ROUNDS):
            window.accumulate(self_weight=share, dst_weights=to)
            window.update_then_collect(require_mutex=False)
        fence(window, group)
        window.update_then_collect(require_mutex=False)
        mass = torch.tensor([float(x[0]), window.p], dtype=torch.float64)
        dist.all_reduce(mass)  # on the CPU
        n = rank.size
        wrong = int(abs(mass[0] - n * (n - 1) / 2) > 1e-9) + int(abs(mass[1] - n) > 1e-9)
        return wrong + int((x != x[0]).sum())


def busy(rank: Rank, group: Any) -> int:
    """A put, with and without a wait, takes what the current stream is about to write."""
    x = torch.zeros(SIZES[1], device=rank.device.torch)
    wrong = 0
    with bf.Window(x, "busy", zero_init=True, group=group) as window:
        for value, later in ((1.0, False), (2.0, True)):
            with rank.device.side_stream():
                rank.device.be_busy(20)
                x.fill_(value)
                handle = window.put(async_op=later)
            if later:
                handle.wait()
            fence(window, group)
            ones = dict.fromkeys(window.in_neighbors, 1.0)
            got = window.update(self_weight=0.0, neighbor_weights=ones, clone=True)
            wrong += int((got.cpu() != value * len(ones)).sum())
            fence(window, group)
        rank.device.synchronize()
        began = time.perf_counter()
        window.put()
        took = time.perf_counter() - began
        if rank.rank == 0:
            name = f"put of {x.nbytes // 1000} kB, {rank.size} ranks, {window.memory}"
            rank.tell({"check": name, "value": round(1e6 * took, 1), "unit": "us"})
        fence(window, group)
    return wrong


def training(rank: Rank, group: Any) -> int:
    """Each asynchronous algorithm, some steps; in the end all ranks have the same parameters."""
    x = torch.arange(64.0, device=rank.device.torch).view(8, 8).sin()
    wrong = 0
    for name in ("a2cid2", "ad_psgd", "async_push_sum", "pull_get", "win_put"):
        torch.manual_seed(0)
        module = nn.Linear(8, 4).to(rank.device.torch)
        model = bf.DecentralizedDataParallel(module, algorithm=name, process_group=group)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(x) - rank.rank).square().mean()
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
        model.finalize()
        everywhere: list[Any] = [None] * rank.size
        dist.all_gather_object(everywhere, module.weight.tolist(), group=group)
        wrong += int(everywhere[0] != everywhere[rank.rank]) + int(losses[-1] > 2 * losses[0] + 1)
    return wrong


CHECKS = {
    "made": memory,
    "calls": calls,
    "push-sum": push_sum,
    "a busy stream": busy,
    "training": training,
}


if __name__ == "__main__":
    raise SystemExit(main())
