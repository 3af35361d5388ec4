"""make gpu-check: without a GPU it says so; its report; its checks, on an emulated GPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest
import torch
from emulated import needs_cuda_module

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
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
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))


def emulate(*command, cwd=BENCHMARKS):
    """Runs a Python program on an emulated GPU; returns its rows."""
    output = emulated.run(*command, cwd=cwd, seconds=240)
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"check"')]


def check(part, *options):
    """The rows of a part, all of which are ok."""
    rows = emulate("-m", f"gpu.{part}", *options)
    assert all(row.get("ok", True) for row in rows)
    return rows


def case(name):
    """The rows of a function of gpu_check_cases.py, by name."""
    code = f"import gpu_check_cases; gpu_check_cases.{name}()"
    return {row["check"]: row for row in emulate("-c", code, cwd=TESTS)}


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


@needs_cuda_module
def test_what_a_kernel_writes_outside_is_counted():
    right, wrong = case("kernel_that_writes_outside").values()
    assert (right["far"], right["different"]) == (0, 0)
    assert (wrong["far"], wrong["different"]) == (1, 1)


@needs_cuda_module
def test_ranks_that_fail_are_rows():
    rows = case("ranks_that_fail")
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


# ---- The checks, on an emulated GPU


@needs_cuda_module
def test_kernels():
    rows = check("kernels", "--quick")
    assert len(rows) == 11 and all(row["elements"] > 10_000 for row in rows)


@needs_cuda_module
def test_ranks():
    assert len(check("ranks", "--ranks", 4, "--seconds", 200)) == 23


@needs_cuda_module
def test_streams():
    assert len(check("streams", "--elements", 5000, "--seconds", 200)) == 2 * (9 + 3)


@needs_cuda_module
def test_training():
    """Triton, which inductor needs, knows no emulated GPU."""
    rows = check("training", "--ranks", 2, "--seconds", 200, "--compiler", "aot_eager")
    assert len(rows) == 12 and rows[-1]["check"] == "torch.compile"


@needs_cuda_module
def test_enqueue():
    assert len(check("enqueue", "--megabytes", 1, "--seconds", 200)) == 8


@needs_cuda_module
def test_symmetric():
    rows = check("symmetric", "--ranks", 2, 4, "--megabytes", 1, "--seconds", 200)
    shared = [row["check"] for row in rows if row["check"].endswith("in shared memory")]
    assert len(rows) == 10 and len(shared) == 4 and not any("not in" in name for name in shared)
    assert any(row["check"].startswith("the kernel alone") and "value" in row for row in rows)


@needs_cuda_module
def test_windows():
    rows = check("windows", "--ranks", 2, "--seconds", 200)
    memory = [row["memory"] for row in rows if "memory" in row]
    own = "own memory, with NCCL between GPUs"
    last = own if torch.cuda.nccl.version() >= (2, 29) else "pinned memory"
    assert memory == ["symmetric memory", "pinned memory", "pinned memory", last]
    assert len(rows) == 4 * (5 + 2)


@needs_cuda_module
def test_all_of_it(tmp_path):
    """From the options to the report, which says that the GPU was none, by some parts."""
    file = tmp_path / "report.json"
    options = ["--no-build", "--quick", "--report", file, "--only", "bandwidth", "sanitizer"]
    output = emulated.run(BENCHMARKS / "gpu_check.py", *options, seconds=240)
    written = json.loads(file.read_text())
    parts = {part["part"]: (part["status"], len(part["rows"])) for part in written["parts"]}
    assert parts == {
        "machine": ("ok", 1),
        "nccl": ("ok", 2),
        "bandwidth": ("ok", 16),
        "sanitizer": ("skipped", 0),
    }
    assert written["machine"]["torch"] == torch.__version__
    assert written["machine"]["gpu"] == "emulated GPU"
    assert len(written["targets"]) == 16
    assert f"The report is {file}" in output
