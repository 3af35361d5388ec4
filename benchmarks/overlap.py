"""What exchanges over a slow link add to a training step: AWC and ATC beside no communication.

    sudo python benchmarks/overlap.py --bounds 0.3 0.5 0.65
    sudo python benchmarks/overlap.py --only awc --samples 31
    sudo python benchmarks/overlap.py --sleep 8  # layers that take 8 ms forward, 16 ms backward

Two ranks, one thread each, in network namespaces of their own. What they send is limited by tc tbf
to the rate at which all parameters take `bound` times as long as a step without communication. An
MLP, plain SGD, float32, a block per layer. A sample is some steps in steady state: exchanges are
under way when it begins and when it ends; it takes as long as its slower rank. Each contender gives
a sample in each round, and who begins a round changes. What counts is the median of the rounds'
ratios to no communication in the same round; no communication is there twice, to show what a ratio
is worth on this machine. On a busy machine the step may take another time now than when the rate
was set: the bound that counts is the one printed, of the times of the table.

With --sleep layers sleep for most of their time: as if an accelerator computed them, so that cores
are free for the exchange. Then only the order of things counts, even on a busy machine.

ratio: time / time without communication; +-: its standard error. cpu: CPU time of the process
likewise, all threads; what it has more than 1 is the work of the kernel's TCP, of the hooks and of
the averaging, which takes cores from the computation where these are scarce. wait: ms that the
program waited for averages. Frames have 64 KB, which is what a kernel gives to a NIC; with --mtu
1500 the ranks' cores do what NICs do.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harness import links
from torch import nn

import bluefog_pg as bf
from bluefog_pg.group import backend_of

TIMEOUT = 900.0  # s, of everything
PROMISED = {"awc": 1.05, "atc, in backward": 1.10, "atc, in backward, 1 awc": 1.10}
BASE, AGAIN = "no communication", "no communication, again"
BELOW = 0.7  # the bound up to which that is promised
Row = dict[str, Any]


@dataclass
class Sample:
    """Seconds per step."""

    time: float
    cpu: float
    wait: float


@dataclass
class Contender:
    step: Callable[[], None]
    settle: Callable[[], None] = lambda: None
    waited: Callable[[], float] = lambda: 0.0
    samples: list[Sample] = field(default_factory=list)

    def add_sample(self, steps: int) -> None:
        """After two steps more, in which ranks meet and exchanges get under way."""
        dist.barrier()
        for _ in range(2):
            self.step()
        start = time.monotonic(), time.process_time(), self.waited()
        for _ in range(steps):
            self.step()
        end = time.monotonic(), time.process_time(), self.waited()
        self.settle()
        self.samples.append(Sample(*((b - a) / steps for a, b in zip(start, end, strict=True))))

    def rounds(self, of: str) -> list[float]:
        """Collective: of each sample, the rank's that has more of it."""
        every = gather([getattr(sample, of) for sample in self.samples])
        return [max(ranks) for ranks in zip(*every, strict=True)]


def contenders(args: argparse.Namespace) -> dict[str, Contender]:
    hybrid = bf.algorithms.ATC(awc_blocks=1)
    return {
        BASE: contender(args, make_model(args)),
        AGAIN: contender(args, make_model(args)),
        "awc": contender(args, wrapped(args, "awc")),
        "atc, waits first": contender(args, wrapped(args, "atc")),
        "atc": contender(args, wrapped(args, "atc", lazy_combine=True)),
        "atc, in backward": contender(
            args, wrapped(args, "atc", lazy_combine=True), in_backward=True
        ),
        "atc, in backward, 1 awc": contender(
            args, wrapped(args, hybrid, lazy_combine=True), in_backward=True
        ),
    }


def contender(args: argparse.Namespace, model: nn.Module, in_backward: bool = False) -> Contender:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    if in_backward:
        model.step_in_backward(optimizer)
    generator = torch.Generator().manual_seed(dist.get_rank())
    x = torch.randn(args.batch, args.width, generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    if isinstance(model, bf.DecentralizedDataParallel):
        traffic = model._cycle.network.traffic
        return Contender(step, model.settle, lambda: traffic.wait_seconds)
    return Contender(step)


def wrapped(args: argparse.Namespace, algorithm: object, **options: object) -> nn.Module:
    model = make_model(args)
    layer_mb = 4 * args.width * (args.width + 1) / 2**20
    return bf.DecentralizedDataParallel(
        model, algorithm=algorithm, topology="ring", bucket_cap_mb=1.01 * layer_mb, **options
    )


def make_model(args: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    last = Sleeps(args.sleep / 1e3) if args.sleep else nn.ReLU()
    layers = [m for _ in range(args.layers) for m in (nn.Linear(args.width, args.width), last)]
    return nn.Sequential(*layers)


class Sleeps(nn.Module):
    """Takes its seconds in the forward pass, and twice as long in the backward pass."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        y = torch.relu(x)
        y.register_hook(lambda _: time.sleep(2 * self.seconds))
        return y


def exchange_time(args: argparse.Namespace) -> float:
    """Returns the seconds of one exchange of all parameters when nothing else goes on."""
    blocks = wrapped(args, "atc")._cycle.blocks
    times = []
    for _ in range(4):
        dist.barrier()
        start = time.monotonic()
        for block in blocks:
            block.start("x")
        for block in blocks:
            block.finish()
        times.append(time.monotonic() - start)
    return max(gather(statistics.median(times[1:])))


def measure(args: argparse.Namespace, bound: float) -> list[Row]:
    compute = contender(args, make_model(args))
    for _ in range(args.samples):
        compute.add_sample(args.steps)
    nbytes = sum(p.nbytes for p in make_model(args).parameters())
    rate = nbytes / (bound * statistics.median(compute.rounds("time")))
    links.set_rate(rate, args.mtu)
    alone = exchange_time(args)
    ways = contenders(args)
    ways = {name: way for name, way in ways.items() if name in (BASE, AGAIN, *(args.only or ways))}
    turns = list(ways.values())
    for _ in range(args.samples):
        for way in turns:
            way.add_sample(args.steps)
        turns.append(turns.pop(0))
    links.set_rate(None)
    return list(rows_of(ways, {"asked": bound, "wire": nbytes / rate, "alone": alone}))


def rows_of(ways: dict[str, Contender], setting: Row) -> Iterator[Row]:
    base = {of: ways[BASE].rounds(of) for of in ("time", "cpu")}
    bound = setting["wire"] / statistics.median(base["time"])
    for name, way in ways.items():
        row = {of: statistics.median(way.rounds(of)) for of in ("time", "wait")}
        row["ratio"], row["error"] = ratio(way.rounds("time"), base["time"])
        row["cpu ratio"], _ = ratio(way.rounds("cpu"), base["cpu"])
        promised = PROMISED.get(name) if bound < BELOW else None
        yield setting | {"contender": name, "bound": bound, "promised": promised} | row


def ratio(those: list[float], these: list[float]) -> tuple[float, float]:
    """Returns the median of the ratios in each round, and its standard error.

    The latter from their quartiles, as of a normal distribution: sigma sqrt(pi / (2 rounds)), and
    1.349 sigma lie between the quartiles.
    """
    ratios = [a / b for a, b in zip(those, these, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    sigma = (quartiles[2] - quartiles[0]) / 1.349
    return quartiles[1], sigma * math.sqrt(math.pi / (2 * len(ratios)))


def report(rows: list[Row]) -> None:
    first = rows[0]
    print(
        f"\n# bytes over bandwidth {first['wire'] * 1e3:.0f} ms, bound {first['bound']:.2f} "
        f"(asked: {first['asked']:.2f}); an exchange alone took {first['alone'] * 1e3:.0f} ms"
    )
    print(f"{'':<26}{'ms':>8}{'ratio':>8}{'+-':>7}{'cpu':>8}{'wait':>8}  promised")
    for row in rows:
        most = row["promised"]
        verdict = f"{most:.2f}: {'kept' if row['ratio'] <= most else 'BROKEN'}" if most else ""
        print(
            f"{row['contender']:<26}{row['time'] * 1e3:8.1f}{row['ratio']:8.3f}"
            f"{row['error']:7.3f}{row['cpu ratio']:8.3f}{row['wait'] * 1e3:8.1f}  {verdict}",
            flush=True,
        )


def gather(value: object) -> list[Any]:
    """Returns all ranks' values."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def run_rank(args: argparse.Namespace) -> None:
    rank = links.join(args.mtu)
    torch.set_num_threads(1)
    dist.init_process_group("bluefog", timeout=timedelta(seconds=60))
    transport = backend_of(None).transport_of(1 - rank)
    if rank == 0:
        print(
            f"# 2 ranks on {len(os.sched_getaffinity(0))} cores, 2 network namespaces, over "
            f"{transport}; torch {torch.__version__}; {args.layers} layers "
            f"of {args.width} x {args.width}, "
            + (f"{args.sleep} ms forward" if args.sleep else f"batch {args.batch}")
        )
    for bound in args.bounds:
        rows = measure(args, bound)
        if rank == 0:
            report(rows)
        if rank == 0 and args.json:
            with args.json.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--bounds", type=float, nargs="+", default=[0.3, 0.5, 0.65], help="exchange / compute")
    add("--width", type=int, default=128)
    add("--layers", type=int, default=12)
    add("--batch", type=int, default=16384)
    add("--only", nargs="+", metavar="CONTENDER", help='"awc", "atc, in backward", ...')
    add("--mtu", type=int, default=links.MTU, help="bytes of a frame")
    add("--sleep", type=float, help="ms that each layer sleeps in its forward pass")
    add("--steps", type=int, default=4, help="in a sample")
    add("--samples", type=int, default=15)
    add("--json", type=Path, help="append a line per row")
    add("--quick", action="store_true", help="small, to see that it runs")
    add("--is-rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.bounds, args.layers, args.batch, args.steps, args.samples = [0.5], 4, 128, 2, 2
    if args.sleep:
        args.batch = 8
    return args


def main() -> int:
    args = parse()
    if args.is_rank:
        run_rank(args)
        return 0
    if why := links.why_not():
        print(f"# skipped: {why}")
        return 0
    return links.start([*sys.argv, "--is-rank"], TIMEOUT)


if __name__ == "__main__":
    sys.exit(main())
