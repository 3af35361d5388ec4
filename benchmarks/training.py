"""Accuracy and cost of training: algorithms and topologies on real data, beside stock DDP.

    python benchmarks/training.py --data digits --ranks 4 --algorithms atc gradient_tracking

Each rank sees a contiguous share of training data that is sorted by label (text: in its order), so
that ranks differ as much as they can; with --mixed, of data in random order. Same start, batches,
optimizer and number of steps for all; DDP averages gradients over Gloo. accuracy is that of the
averaged model on the test data, in percent, as mean and range over the seeds; distance is the
consensus distance at the end; sent are the payload bytes per rank and step (of an allreduce the 2
(n - 1) / n S of a ring, as Gloo counts nothing). ms is the mean time of a step, without the slowest
2 %. Algorithms with local steps average every 20 steps. Prints a table in Markdown for each number
of ranks.

With --slow 10 a step takes 5 ms more on all ranks, asleep, and 50 ms on rank 0, which makes a tenth
of the steps where it can, with asynchronous algorithms, so that all end together; sent and ms are
then those of the last rank.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harness import table
from harness.launch import is_rank, start_ranks
from harness.world import World
from tasks import TASKS, Data, Missing, Task, loss, percent_right
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms, topology

TOPOLOGIES = ("one_peer_exponential", "ring")
WITH_MOMENTUM = {"decentlam", "dmsgd", "dmsgd_mixed", "momentum_tracking", "qg_dsgdm"}
ROUND = 20  # steps between averages of methods with local steps
# Of the learning rate, so that steps are equally long: 1 - momentum, 1 / the usual mean of w.
FACTORS = dict.fromkeys(WITH_MOMENTUM, 0.1) | {"async_push_sum": 2.0}
WITH_ROUNDS = {"diloco", "gasloc", "local_sgd", "noloco", "post_local_sgd", "slowmo"}
FOR_SGD_ONLY = WITH_MOMENTUM | {"d2", "exact_diffusion", "extra", "relay_sgd", "ceca"}
DDP = "DDP on gloo"
NAP = 0.005  # s, of a step with --slow


@dataclass(frozen=True)
class Contender:
    algorithm: str
    topology: str


@dataclass(frozen=True)
class Result:
    accuracy: float
    distance: float
    sent: float
    ms: float


def main() -> None:
    args = parse()
    if is_rank():
        sys.exit(run(args))
    sys.exit(start_ranks(args.ranks, {}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", nargs="+", choices=TASKS, default=list(TASKS))
    add("--ranks", type=int, nargs="+", default=[4, 8])
    add("--algorithms", nargs="+", choices=algorithms.names(), default=algorithms.names())
    add("--topologies", nargs="+", choices=topology.names(), default=TOPOLOGIES)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--mixed", action="store_true", help="deal the training data out at random instead")
    add("--slow", type=int, metavar="TIMES", help="how much longer rank 0 takes for a step")
    add("--epochs", type=int, help="default: as benchmarks/tasks.py has it for the data")
    add("--quick", action="store_true", help="a few steps; the figures mean little")
    add("--json", type=Path, help="also append a JSON object per row to this file")
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    world = World.join()
    machine = table.machine(world)
    seeds = args.seeds[:1] if args.quick else args.seeds
    for name in args.data:
        task = TASKS[name]
        if args.epochs is not None:
            task = replace(task, epochs=args.epochs)
        try:
            data = [task.load(seed) for seed in seeds]
        except Missing as missing:
            say(world, f"\n# No rows of {name}: {missing}")
            continue
        if args.mixed:
            data = [(mixed(d[0], seed), d[1]) for seed, d in zip(seeds, data, strict=True)]
        print_heading(world, machine, name)
        for contender in contenders(args, task, world.size):
            results = [
                train(world, task, contender, seed, *sets, args)
                for seed, sets in zip(seeds, data, strict=True)
            ]
            row = {"data": name, **asdict(contender), "results": [asdict(r) for r in results]}
            print_row(world, contender, results)
            if args.json and world.rank == 0:
                table.append_json(args.json, machine, row)
    dist.destroy_process_group()
    return 0


def mixed(data: Data, seed: int) -> Data:
    order = torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(seed))
    return data[0][order], data[1][order]


def contenders(args: argparse.Namespace, task: Task, ranks: int) -> Iterator[Contender]:
    """DDP, and each algorithm on those topologies that are safe for it, or on its own default."""
    yield Contender(DDP, "-")
    for name in args.algorithms:
        kind = algorithms.get(name)
        if name in FOR_SGD_ONLY and task.optimizer is not torch.optim.SGD:
            continue
        fitting = [t for t in args.topologies if is_safe(kind, t, ranks)]
        for graph in fitting or [kind.default_topology]:
            yield Contender(name, graph)


def is_safe(kind: type[algorithms.Algorithm], graph: str, ranks: int) -> bool:
    return (kind.safety or kind.name) in topology.safe_for(topology.get(graph)(ranks))


def train(
    world: World,
    task: Task,
    who: Contender,
    seed: int,
    data: Data,
    test: Data,
    args: argparse.Namespace,
) -> Result:
    torch.manual_seed(seed)
    model = distributed(world, who, task.make_model())
    factor = FACTORS.get(who.algorithm, 1.0)
    optimizer = task.optimizer(model.parameters(), lr=factor * task.lr)
    batches = batches_of(world, task, seed, len(data[1]), 4 if args.quick else None)
    nap = NAP if args.slow else 0.0
    if args.slow and world.rank == 0:
        nap *= args.slow
        batches = batches[:: args.slow] if waits_for_nobody(who) else batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, len(batches), eta_min=factor * task.lr / 10
    )
    times = []
    for batch in batches:
        began = time.perf_counter()
        optimizer.zero_grad()
        loss(model, data[0][batch], data[1][batch]).backward()
        optimizer.step()
        time.sleep(nap)
        times.append(time.perf_counter() - began)
        schedule.step()
    result = evaluate(world, model, test, len(times), typical(times))
    return world.gather(result)[-1 if args.slow else 0]


def waits_for_nobody(who: Contender) -> bool:
    return who.algorithm != DDP and algorithms.get(who.algorithm).asynchronous


def typical(times: list[float]) -> float:
    """The mean without the slowest 2 %, which the machine is to blame for."""
    return statistics.mean(sorted(times)[: max(1, len(times) * 98 // 100)])


def distributed(world: World, who: Contender, model: nn.Module) -> nn.Module:
    if who.algorithm == DDP:
        return nn.parallel.DistributedDataParallel(model, process_group=world.gloo)
    return bf.DecentralizedDataParallel(
        model,
        algorithm=algorithms.get(who.algorithm)(**options_of(who.algorithm, world.size)),
        topology=who.topology,
        process_group=world.bluefog,
    )


def options_of(algorithm: str, ranks: int) -> dict[str, Any]:
    if algorithm == "hierarchical_sgd":
        return {"periods": {ROUND // 4: 2, ROUND: ranks} if ranks > 2 else {ROUND: ranks}}
    return {"every": ROUND} if algorithm in WITH_ROUNDS else {}


def batches_of(
    world: World, task: Task, seed: int, samples: int, most: int | None
) -> list[torch.Tensor]:
    """Indices of this rank's batches, equally many on all ranks."""
    share = samples // world.size
    mine = torch.arange(world.rank * share, (world.rank + 1) * share)
    order = torch.Generator().manual_seed(1000 * seed + world.rank)
    epochs = [mine[torch.randperm(share, generator=order)] for _ in range(task.epochs)]
    whole = share // task.batch * task.batch
    batches = [b for epoch in epochs for b in epoch[:whole].split(task.batch)]
    return batches[:most]


def evaluate(world: World, model: nn.Module, test: Data, steps: int, seconds: float) -> Result:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        nbytes = sum(p.nbytes for p in model.parameters())
        ring = 2 * (world.size - 1) / world.size * nbytes
        return Result(accuracy_of(world, model, test), 0.0, ring, 1000 * seconds)
    distance = model.consensus_distance()
    sent = model.statistics().bytes_sent / steps
    with model.averaged():
        right = accuracy_of(world, model, test)
    return Result(right, distance, sent, 1000 * seconds)


def accuracy_of(world: World, model: nn.Module, test: Data) -> float:
    """Of a model that is the same on all ranks; one of them looks."""
    return world.gather(percent_right(model.eval(), *test) if world.rank == 0 else None)[0]


def print_heading(world: World, machine: table.Row, name: str) -> None:
    say(
        world,
        f"\n{name}, {world.size} ranks on {machine['cores']} cores of {machine['cpu']}, "
        f"torch {machine['torch']}\n\n"
        "| algorithm | topology | accuracy, % | distance | sent, kB | ms |\n"
        "|---|---|---|---|---|---|",
    )


def print_row(world: World, contender: Contender, results: list[Result]) -> None:
    accuracy = [r.accuracy for r in results]
    cells = [
        contender.algorithm,
        contender.topology,
        f"{statistics.mean(accuracy):.1f} ({min(accuracy):.1f} to {max(accuracy):.1f})",
        f"{statistics.mean(r.distance for r in results):.2g}",
        f"{statistics.mean(r.sent for r in results) / 1000:.3g}",
        f"{statistics.median(r.ms for r in results):.2f}",
    ]
    say(world, f"| {' | '.join(cells)} |")


def say(world: World, text: str) -> None:
    if world.rank == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
