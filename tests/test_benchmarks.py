"""benchmarks/: each runs, is right, and says so in JSON; a contender that fails is a row."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from ranks import run_ranks

FOLDER = Path(__file__).parents[1] / "benchmarks"
QUICK = ["--quick", "--ranks", "2"]
SMALL = ["--bytes", "4", str(1 << 16)]
MODEL = ["--model", "mlp"]
MODULES = ("case", "measure", "table", "world")

CONTENDERS = {
    "neighbor_allreduce": {"bluefog", "bluefog, own memory", "bluefog, TCP", "gloo"},
    "neighbor_allgather": {"bluefog", "bluefog, own memory", "gloo"},
    "win_put": {"bluefog", "bluefog, two-sided"},
    "all_reduce": {"bluefog", "bluefog, own memory", "gloo"},
    "ddp_step": {"bluefog", "no communication", "gloo, flat", "decent-dp", "DDP on gloo"},
}


def run(name, tmp_path, path=None):
    """Returns the lines printed and the rows written."""
    file = tmp_path / "rows.json"
    options = [*QUICK, *(MODEL if name == "ddp_step" else SMALL), "--json", str(file)]
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | ({} if path is None else {"PATH": path}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", CONTENDERS)
def test_benchmark(name, tmp_path):
    lines, rows = run(name, tmp_path)
    has_mpi = rows[0]["mpi"] is not None
    assert has_mpi != any(line.startswith("# No rows of MPI: ") for line in lines)
    by_name = {row["contender"] for row in rows}
    assert by_name >= CONTENDERS[name]
    assert any("mpi" in contender for contender in by_name) == has_mpi
    for row in rows:
        if row["contender"] == "decent-dp" and "No module named" in (row["failed"] or ""):
            continue  # installed for make bench only
        assert row["failed"] is None
        nothing = ("bound", "no communication", "bluefog alone", "torch alone")
        unchecked = row["contender"].startswith(nothing)
        assert row["wrong"] == (None if unchecked else 0)
        assert 0 < row["us"][0] <= row["us"][1] <= row["us"][2] <= row["us"][3]
    first = [row for row in rows if row["contender"] == "bluefog"]
    assert all(row["ratio"] == [1, 1] and row["operation"] == name for row in first)
    header = next(line for line in lines if line.startswith("# 2 ranks on "))
    for word in ("torch ", "bluefog over shm", " build", "MPI"):
        assert word in header
    assert sum(bool(re.match(r" *\d+ float32 ", line)) for line in lines) == len(rows)


def test_ranks_start_without_mpi(tmp_path):
    lines, rows = run("all_reduce", tmp_path, path=str(tmp_path))
    assert "apt-get install openmpi-bin" in lines[0]
    assert {row["mpi"] for row in rows} == {None}
    assert all(not row["wrong"] for row in rows)


@pytest.mark.parametrize("with_mpi", [True, False])
def test_ranks_end_with_their_benchmark(with_mpi, tmp_path):
    command = [sys.executable, FOLDER / "all_reduce.py", "--ranks", "2", "--samples", "1000000"]
    path = {} if with_mpi else {"PATH": str(tmp_path)}
    environment = os.environ | {"BENCHMARK_OF": str(tmp_path)} | path
    with subprocess.Popen(
        [*command, *SMALL], stdout=subprocess.PIPE, text=True, env=environment
    ) as benchmark:
        try:
            assert any(line.startswith("# 2 ranks on ") for line in benchmark.stdout)
            assert len(processes_with(f"BENCHMARK_OF={tmp_path}")) > 2
        finally:
            benchmark.terminate()
        assert benchmark.wait(timeout=60) == 128 + signal.SIGTERM
        assert not processes_with(f"BENCHMARK_OF={tmp_path}")


def processes_with(variable):
    """Those that live with it in their environment, which children inherit."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in file.read_text(errors="replace").split("\0"):
                found.append(file.parent.name)
    return found


def test_overlap(tmp_path):
    """Its times mean nothing when they are this short; that link and ranks work is what counts."""
    file = tmp_path / "rows.json"
    command = [sys.executable, str(FOLDER / "overlap.py"), "--quick", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("# skipped: "):
        pytest.skip(done.stdout)
    assert done.stdout.startswith("# 2 ranks on ") and "over tcp" in done.stdout
    rows = {row["contender"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert rows["no communication"]["ratio"] == 1 and rows["no communication"]["wait"] == 0
    assert set(rows) > {"awc", "atc", "atc, in backward"}
    for row in rows.values():
        assert row["time"] > 0 and row["alone"] > 0.5 * row["wire"]  # the limit is real
    links = subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    assert "link0" not in links and "bluefog" not in links


def harness():
    sys.path.insert(0, str(FOLDER))
    return Namespace(**{name: importlib.import_module(f"harness.{name}") for name in MODULES})


def failing_contenders(rank, nproc):
    """One that fails on rank 1 only, one that is wrong there, and one that is well."""
    h = harness()
    world = h.world.World.join()
    rounds = h.case.rounds_of("ring", world)
    case = h.case.Case(world, "ring", 4096, h.case.torch.float32, rounds)

    def fails(step):
        if rank == 1:
            raise RuntimeError("no more\nsecond line")

    def contender(call=lambda step: None):
        x = case.fill(case.y)
        return h.case.Contender(call, lambda: case.wrong(x, [(1.0, 0.0)]))

    ways = {"well": contender, "fails": lambda: contender(fails)}
    entries = h.measure.compare(world, ways, 2, 0.0001, 1)
    rows = h.table.rows(case, entries, {}, [], 1.0)
    return [(row["failed"], row.get("wrong"), len(row.get("us", []))) for row in rows]


def test_failures_and_wrong_results_are_told_by_all_ranks():
    wrong = 1024  # rank 1 has 8 more in each element than expected
    expected = [(None, wrong, 4), ("RuntimeError: no more", None, 0)]
    assert run_ranks(failing_contenders, 2) == [expected, expected]
