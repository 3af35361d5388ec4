"""The table, and the lines above it that say what was measured on."""

import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

from bluefog_pg import _build_info
from bluefog_pg.group import backend_of
from harness.case import Case
from harness.measure import Entry
from harness.world import World

Row = dict[str, Any]
Probe = tuple[Entry, float]
"""An entry, and the passes over memory that a call of it makes."""


def machine(world: World) -> Row:
    """What all rows of a run have in common."""
    backend = backend_of(world.bluefog)
    peers = [rank for rank in range(world.size) if rank != world.rank]
    return {
        "operation": Path(sys.argv[0]).stem,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "transport": "+".join(sorted({backend.transport_of(rank) for rank in peers})),
        "build": _build_info.BUILD_TYPE,
        "mpi": re.sub(r",.*", "", world.mpi.Get_library_version()) if world.mpi else None,
        "ranks": world.size,
    }


def rows(
    case: Case, entries: dict[str, Entry], bounds: dict[str, float], probes: list[Probe], bus: float
) -> list[Row]:
    """Returns a row per contender and bound; ratios are to the first one.

    bounds: passes over memory by name. bus: busbw / algbw.
    """
    described = [(name, entry, 1.0) for name, entry in entries.items()]
    usable = [probe for probe in probes if probe[0].times]
    if usable:
        fastest, passes = min(usable, key=lambda probe: min(probe[0].times) / probe[1])
        described += [(name, fastest, count / passes) for name, count in bounds.items()]
    first = next(iter(entries.values()))
    reference = first.quantiles() if first.times else None
    return [_row(case, *of, reference, bus) for of in described]


def _row(
    case: Case, name: str, entry: Entry, factor: float, reference: list[float] | None, bus: float
) -> Row:
    row = {
        "bytes": case.nbytes,
        "dtype": str(case.dtype).removeprefix("torch."),
        "label": case.label,
        "contender": name,
        "failed": entry.failure,
    }
    if entry.failure:
        return row
    times = entry.quantiles(factor)
    bandwidth = case.nbytes / times[1] / 1e9
    ratio = None if reference is None else [times[i] / reference[i] for i in (0, 1)]
    us = [seconds * 1e6 for seconds in times]
    speeds = {"algbw": bandwidth, "busbw": bandwidth * bus}
    return row | speeds | {"us": us, "wrong": entry.wrong, "ratio": ratio}


def print_heading(machine: Row, label: str) -> None:
    print(
        f"\n# {machine['ranks']} ranks on {machine['cores']} cores of {machine['cpu']}; "
        f"torch {machine['torch']}; bluefog over {machine['transport']}, {machine['build']} build; "
        f"{machine['mpi'] or 'no MPI'}"
    )
    if machine["build"].lower() not in ("release", "relwithdebinfo"):
        print(f"# WARNING: a {machine['build']} build of bluefog_pg; its times mean little")
    print(
        f"{'bytes':>10} {'dtype':<8} {label:<21} {'contender':<20} |"
        f"{'min us':>10} {'p50':>10} {'p99':>10} {'max':>10} |"
        f"{'algbw':>7} {'busbw':>7} GB/s | #wrong | ratio of min, p50",
        flush=True,
    )


def print_row(row: Row) -> None:
    start = f"{row['bytes']:>10} {row['dtype']:<8} {row['label']:<21} {row['contender']:<20} |"
    if row["failed"]:
        print(f"{start} failed: {row['failed']}", flush=True)
        return
    us = " ".join(f"{value:10.1f}" for value in row["us"])
    wrong = "-" if row["wrong"] is None else row["wrong"]
    ratio = " ".join(f"{value:8.2f}" for value in row["ratio"] or [])
    speeds = f"{row['algbw']:7.3f} {row['busbw']:7.3f}"
    print(f"{start}{us} |{speeds}      | {wrong:>6} | {ratio}", flush=True)


def append_json(path: Path, machine: Row, row: Row) -> None:
    with path.open("a") as file:
        file.write(json.dumps(machine | row) + "\n")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.machine()
