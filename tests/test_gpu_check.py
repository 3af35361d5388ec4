"""make gpu-check: on a machine without a GPU it says so; its checks, on the CPU; its report."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
PARTS = [
    "machine",
    "kernels",
    "nccl",
    "ranks",
    "streams",
    "bandwidth",
    "enqueue",
    "training",
    "symmetric",
    "windows",
]
GOOD = ["print('noise'); from gpu.rows import *; emit(checked('sums', 0))"]
WRONG = [
    "from gpu.rows import *; emit(checked('sums', 3));emit(measured('speed', 0.5, 'x', at_least=1))"
]
ENDLESS = [
    "import subprocess, sys, time; from gpu.rows import *; emit(checked('first', 0));"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
    "print(child.pid, flush=True); time.sleep(100)"
]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def check(*arguments, timeout=240):
    """Runs a part on the CPU; returns its rows by name."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--device", "cpu"],
        cwd=BENCHMARKS,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    assert rows and all(row.get("ok", True) for row in rows)
    return {row["check"]: row for row in rows}


def gpu_check(python, path=None, **environment):
    environment = os.environ | {"PYTHON": str(python), "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(
        [ROOT / "scripts/gpu-check"], capture_output=True, text=True, env=environment, timeout=60
    )


def test_without_a_gpu(tmp_path):
    done = gpu_check(sys.executable, OUT=str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("no GPU is visible: torch.cuda.is_available() is False for ")
    assert torch.__version__ in sentence
    assert not list(tmp_path.iterdir())


def test_without_torch(tmp_path):
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    python.chmod(0o755)
    done = gpu_check(python)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{python} has no torch that can be imported")


def test_make_gpu_check_needs_no_virtual_environment(tmp_path):
    make = ["make", "-n", "gpu-check", "PYTHON=some-python", f"VENV={tmp_path / 'none'}"]
    outside = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(make, cwd=ROOT, env=outside, capture_output=True, text=True)
    assert done.stdout.split() == ["PYTHON=some-python", "scripts/gpu-check"]


@pytest.mark.parametrize("name", PARTS)
def test_parts_can_be_imported(name):
    assert callable(importlib.import_module(f"gpu.{name}").main)


# ---- The report


def part(name, code, seconds=60.0, **more):
    from gpu.report import Part

    return Part(name, [sys.executable, "-c", *code], seconds, cwd=BENCHMARKS, **more)


def test_report(tmp_path):
    from gpu import report

    parts = [
        report.run(part("good", GOOD), tmp_path),
        report.run(part("wrong", WRONG), tmp_path),
        report.run(part("endless", ENDLESS, 5.0), tmp_path),
        report.run(part("silent", ["pass"]), tmp_path),
        report.run(part("dead", ["import os; os.abort()"], has_rows=False), tmp_path),
        report.run(part("late", GOOD), tmp_path, seconds_left=0.5),
        report.run(part("absent", GOOD, skipped="there is none"), tmp_path),
        report.run(part("quiet", ["pass"], has_rows=False), tmp_path),
    ]
    states = ["ok", "failed", "timeout", "failed", "failed", "timeout", "skipped", "ok"]
    assert [p["status"] for p in parts] == states
    file = tmp_path / "new" / "report.json"
    assert report.write(file, {"gpu": "a GPU"}, parts) == 1
    written = json.loads(file.read_text())
    assert written["bad"] == ["wrong", "endless", "silent", "dead", "late"]
    assert written["ok"] is False and written["machine"] == {"gpu": "a GPU"}
    assert [row["check"] for row in written["parts"][2]["rows"]] == ["first"]
    (target,) = written["targets"]
    assert (target["part"], target["value"], target["met"]) == ("wrong", 0.5, False)
    child = int(parts[2]["output"].split()[-1])
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"

    text = report.summary({"gpu": "a GPU"}, parts)
    for line in ("# gpu: a GPU", "WRONG  wrong: sums: 3 wrong", "target >= 1: MISSED"):
        assert line in text
    assert report.write(file, {}, [parts[0], parts[6], parts[7]]) == 0
    assert json.loads(file.read_text())["ok"] is True


def test_a_target_that_is_missed_is_no_failure():
    from gpu.rows import checked, measured, status

    missed = measured("speed", 0.5, "x", at_least=0.9)
    assert missed["target"] == ">= 0.9" and not missed["met"]
    assert measured("time", 20, "us", at_most=20)["met"]
    assert status([missed, checked("sums", 0)]) == 0
    assert status([missed, checked("sums", 1)]) == status([]) == 1


# ---- The checks find what is wrong


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_wrong_sums_are_counted(dtype):
    from gpu.reference import count_different, count_wrong, values

    x, r = values([1000], dtype, 1), values([1000], dtype, 2)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    y = (0.3 * x.to(wide) + 0.7 * r.to(wide)).to(dtype)
    terms = [(0.3, x), (0.7, r)]
    assert count_wrong(y, terms) == 0
    eps = torch.finfo(dtype).eps
    other = y.clone()
    other[3], other[500], other[-1] = float("nan"), y[500] * (1 + 64 * eps), 77
    assert count_wrong(other, terms) == count_different(other, y) == 3
    assert count_wrong(y[:999], terms) == 1000
    assert count_wrong(y, [(0.3, x), (0.6, r)]) > 900


def test_what_a_kernel_writes_outside_is_counted(monkeypatch):
    from gpu import kernels
    from gpu.device import Device

    from bluefog_pg._extension import load

    load()  # defines the operator

    case = kernels.Case(torch.float32, torch.bfloat16, [7, 100], 2, offset=1)
    assert kernels.count(Device("cpu"), case) == (0, 0)

    combine = torch.ops.bluefog.combine

    def in_excess(outputs, *others):
        start = outputs[0].storage_offset()
        if start:  # not the one that is compared with
            torch.as_strided(outputs[0], [1], [1], start - 1).fill_(5)
        combine(outputs, *others)

    monkeypatch.setattr(torch.ops, "bluefog", SimpleNamespace(combine=in_excess))
    far, different = kernels.count(Device("cpu"), case)
    assert far == different == 1


def test_ranks_that_fail_are_rows():
    code = (
        "from gpu.launch import run_ranks\n"
        "from gpu_check_cases import *\n"
        "if __name__ == '__main__':\n"
        "    for row in run_ranks('ranks', bad, 2, 'cpu', seconds=60): print(row)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{BENCHMARKS}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    rows = {row["check"]: row for row in map(eval, done.stdout.splitlines())}
    assert rows["all fail"]["ok"] is False and "on purpose" in rows["all fail"]["error"]
    assert rows["all are wrong"] == {
        "check": "all are wrong",
        "ok": False,
        "wrong": 3,
        "ranks": 2,
        "of": "2",
    }
    assert rows["one fails"]["ok"] is False and "alone" in rows["one fails"]["error"]
    assert "rank 1: " in rows["ranks"]["error"]
    assert "never" not in rows


# ---- The checks, on the CPU


def test_kernels_on_the_cpu():
    rows = check("gpu.kernels", "--quick")
    assert len(rows) == 11 and all(row["elements"] > 10_000 for row in rows.values())


def test_ranks_on_the_cpu():
    assert len(check("gpu.ranks", "--ranks", "4", "--seconds", "200")) == 23


def test_streams_on_the_cpu():
    assert len(check("gpu.streams", "--elements", "5000", "--seconds", "200")) == 18


def test_training_on_the_cpu():
    rows = check("gpu.training", "--ranks", "2", "--seconds", "200")
    assert len(rows) == 12 and "torch.compile" in rows


def test_measures_on_the_cpu():
    assert len(check("gpu.enqueue", "--megabytes", "1", "--seconds", "200")) == 8
    rows = check("gpu.symmetric", "--ranks", "2", "--megabytes", "1", "--seconds", "200")
    assert "ring, 2 ranks, in shared memory" in rows


def test_windows_on_the_cpu():
    rows = check("gpu.windows", "--ranks", "2", "--seconds", "200")
    assert len(rows) == 4 * 5 + 2 and rows["windows' memory"]["memory"] == "host memory"


def test_all_of_it(tmp_path):
    """From the options to the report, by two parts."""
    file = tmp_path / "report.json"
    options = ["--no-build", "--device", "cpu", "--quick", "--report", str(file)]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu_check.py", *options, "--only", "bandwidth", "sanitizer"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(file.read_text())
    states = {part["part"]: part["status"] for part in written["parts"]}
    assert states == {"machine": "ok", "nccl": "ok", "bandwidth": "ok", "sanitizer": "skipped"}
    assert written["machine"]["torch"] == torch.__version__
    assert len(written["targets"]) == 16
    assert f"The report is {file}" in done.stdout
