"""What a benchmark consists of, and its run from the command line to the table."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from harness import bound, table
from harness.case import Case, rounds_of
from harness.launch import is_rank, start_ranks
from harness.measure import Make, compare
from harness.world import World

SIZES = [4, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 100 << 20]  # bytes
QUICK_SIZES = [4, 64 << 10]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
Arguments = argparse.Namespace


@dataclass(frozen=True)
class Benchmark:
    """An operation, and whom it is compared with.

    doc: the first line is the description of the command.
    contenders: ways to do it by name, each made when it is called; the first is the one that
        ratios are to.
    bus: busbw / algbw of a case.
    passes: bounds by name, in passes over S bytes that each rank cannot do without.
    labels: what there is to measure: topologies, or another `label`.
    cases: makes the cases of the labels; default: those of topologies, in all sizes.
    """

    doc: str
    contenders: Callable[[Case], dict[str, Make]]
    bus: Callable[[Case], float]
    passes: Callable[[Case], dict[str, float]]
    labels: tuple[str, ...]
    label: str = "topology"
    ranks: tuple[int, ...] = (2, 4, 8)
    seconds: float = 0.1  # of a sample; ranks that outnumber cores start some ms apart
    fewest_calls: int = 2  # in a sample
    samples: int = 5
    cases: Callable[[World, Arguments], Iterator[Case]] | None = None


def main(benchmark: Benchmark) -> None:
    """Ends the process; the exit status is 1 if a result was wrong."""
    args = _parse(benchmark)
    if is_rank():
        sys.exit(_run(benchmark, args))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(start_ranks(args.ranks, bound.compile_probes(folder)))


def _parse(benchmark: Benchmark) -> Arguments:
    parser = argparse.ArgumentParser(description=benchmark.doc.partition("\n")[0])
    add = parser.add_argument
    add("--ranks", type=int, nargs="+", default=benchmark.ranks)
    add(f"--{benchmark.label}", nargs="+", default=benchmark.labels, dest="labels", metavar="NAME")
    if benchmark.cases is None:
        add("--bytes", type=int, nargs="+")
        add("--dtype", choices=DTYPES, default="float32")
    add("--samples", type=int, help="how often the contenders take turns")
    add("--quick", action="store_true", help="seconds; the figures mean little")
    add("--json", type=Path, help="also append a JSON object per row to this file")
    args = parser.parse_args()
    if args.samples is None:
        args.samples = 1 if args.quick else benchmark.samples
    return args


def _run(benchmark: Benchmark, args: Arguments) -> int:
    world = World.join()
    machine = table.machine(world)
    if world.rank == 0:
        table.print_heading(machine, benchmark.label)
    wrong = 0
    for case in (benchmark.cases or _cases)(world, args):
        for row in _rows(benchmark, case, args):
            wrong += row.get("wrong") or 0
            if world.rank == 0:
                table.print_row(row)
                if args.json:
                    table.append_json(args.json, machine, row)
    dist.destroy_process_group()
    return 1 if wrong else 0


def _rows(benchmark: Benchmark, case: Case, args: Arguments) -> list[table.Row]:
    contenders, passes = benchmark.contenders(case), benchmark.passes(case)
    probes = bound.probes(case) if passes else {}
    seconds = benchmark.seconds / (10 if args.quick else 1)
    fewest = 1 if args.quick else benchmark.fewest_calls
    entries = compare(case.world, contenders | probes, args.samples, seconds, fewest)
    measured = [(entries.pop(name), bound.PASSES[name]) for name in probes]
    return table.rows(case, entries, passes, measured, benchmark.bus(case))


def _cases(world: World, args: Arguments) -> Iterator[Case]:
    seen: dict[str, str] = {}
    sizes = args.bytes or (QUICK_SIZES if args.quick else SIZES)
    for topology in args.labels:
        rounds = rounds_of(topology, world)
        same = seen.setdefault(repr(world.gather(rounds)), topology)
        if same != topology:
            if world.rank == 0:
                print(f"# {topology} of {world.size} ranks is the same as {same}.", flush=True)
            continue
        for nbytes in sizes:
            yield Case(world, topology, nbytes, DTYPES[args.dtype], rounds)
