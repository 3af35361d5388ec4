"""All that one GPU can show of bluefog, in minutes: make gpu-check, or scripts/gpu-check.

    scripts/gpu-check                      # builds the package first
    scripts/gpu-check --only kernels ranks
    python tests/emulated.py 1 benchmarks/gpu_check.py --no-build --quick  # on an emulated GPU

Each part is a program, python -m gpu.PART in this folder, with a time limit of its own; one that
fails or takes too long does not keep the others from running. Several ranks share the GPU, so times
of whole exchanges are no measure of NCCL between GPUs. The exit status is 1 if anything was wrong,
which a target that was missed is not.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gpu import report
from gpu.report import Part

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
BUILD = ROOT / "build" / "gpu-check"
SITE = BUILD / "site"
EMULATED = "EMULATED_GPUS" in os.environ  # as tests/emulated.py sets it


def main() -> int:
    args = _parse()
    start = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    BUILD.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    status = 1
    for part in _parts(args):
        print(f"{part.name} ...", flush=True)
        result = report.run(part, BUILD, args.seconds - (time.monotonic() - start))
        print(f"{part.name}: {result['status']}, {result['seconds']} s", flush=True)
        done.append(result)
        _learn(result["rows"], machine)
        status = report.write(args.report, machine, done)  # now, in case that we are ended
        if part.name == "build" and status:
            print(result["output"])
            break
    print(f"{report.summary(machine, done)}\n\nThe report is {args.report}", flush=True)
    return status


def _learn(rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Takes what parts say of the machine; how NCCL is made to work is for those that follow."""
    for row in rows:
        if row["check"] == "machine":
            machine.update((k, v) for k, v in row.items() if k not in ("check", "ok"))
        if row.get("works") and "way" in row:
            machine["nccl way"] = row["way"]
            os.environ["GPU_CHECK_NCCL"] = row["way"]


def _parts(args: argparse.Namespace) -> list[Part]:
    """In the order of their weight, since the last ones may find no time left."""
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    environment = {"PYTHONPATH": path} if args.build or SITE.exists() else {}

    def module(name: str, seconds: float, *options: str) -> Part:
        command = [sys.executable, "-m", f"gpu.{name}", *options]
        return Part(name, command, seconds, environment, FOLDER)

    parts = [
        module("machine", 60),
        module("kernels", 80, *(["--quick"] if args.quick else [])),
        module("nccl", 90),
        module("ranks", 120, *(["--ranks", "2"] if args.quick else []), "--seconds", "60"),
        module("streams", 60, "--seconds", "55", *(["--elements", "5000"] if args.quick else [])),
        module("bandwidth", 45, *(["--mebibytes", "1"] if args.quick else [])),
        module("enqueue", 45, "--seconds", "40", *(["--megabytes", "1"] if args.quick else [])),
        module(
            *("training", 110, "--seconds", "70"),
            *(["--ranks", "2"] if args.quick else []),
            *(["--compiler", "aot_eager"] if EMULATED else []),  # Triton knows no such GPU
        ),
        module(
            *("symmetric", 80, "--seconds", "35"),
            *(["--ranks", "2", "--megabytes", "1"] if args.quick else []),
        ),
        module("windows", 60, *(["--ranks", "2"] if args.quick else []), "--seconds", "25"),
        _sanitizer(environment),
    ]
    if args.cpp:
        parts.append(_cpp())
    if args.only:
        unknown = set(args.only) - {part.name for part in parts}
        if unknown:
            sys.exit(f"there is no part {sorted(unknown)}, only {[part.name for part in parts]}")
        parts = [part for part in parts if part.name in {"machine", "nccl", *args.only}]
    return [_build(), *parts] if args.build else parts


def _build() -> Part:
    """A build without the CUDA module fails, and says why."""
    shutil.rmtree(SITE, ignore_errors=True)
    install = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps"]
    environment = {
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0))),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
        "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} -DBLUEFOG_CUDA=ON",
    }
    return Part("build", [*install, "--target", SITE, "."], 300, environment, ROOT, has_rows=False)


def _sanitizer(environment: dict[str, str]) -> Part:
    """compute-sanitizer sees each tensor's bounds where torch does not keep memory for later."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"])
    tool = shutil.which("compute-sanitizer", path=path)
    kernels = [sys.executable, "-m", "gpu.kernels", "--quick"]
    options = ["--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all"]
    options += ["--report-api-errors", "no"]  # torch asks CUDA for what may not be there
    return Part(
        "sanitizer",
        [tool or "compute-sanitizer", *options, *kernels],
        90,
        environment | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        FOLDER,
        skipped="" if tool and not EMULATED else "it needs compute-sanitizer and a real GPU",
    )


def _cpp() -> Part:
    tree = BUILD / "cpp"
    script = (
        f"cmake -S {ROOT} -B {tree} -G Ninja -DPython_EXECUTABLE={sys.executable} "
        f"-DBLUEFOG_TESTS=ON && cmake --build {tree} --target bluefog_device_tests && "
        f"{tree}/bluefog_device_tests"
    )
    return Part("cpp", ["sh", "-c", script], 240, cwd=ROOT, has_rows=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", metavar="PART", help="these parts; machine and nccl go first")
    add("--quick", action="store_true", help="fewer ranks and sizes")
    add(
        "--no-build",
        dest="build",
        action="store_false",
        help="take the last build, or the package that is installed",
    )
    add("--cpp", action="store_true", help="also build and run the C++ tests for devices")
    add("--seconds", type=float, default=520, help="for all; parts that are left get none")
    add("--report", type=Path, default=Path(os.environ.get("OUT") or BUILD) / "report.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
