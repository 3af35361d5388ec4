"""Processes with emulated GPUs (tests/emulator), on machines that have none.

torch, its ProcessGroupNCCL, allocator, streams, graphs and symmetric memory, and all of bluefog are
the real ones there, down to the calls of CUDA's runtime and of NCCL, which other libraries of the
same names take. So this shows whether results, orders and errors are right, and no times.

    make emulator
    .venv/bin/python tests/emulated.py 4 -m torch.distributed.run --nproc_per_node 4 train.py
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bluefog_pg._extension import load_cuda

_TESTS = Path(__file__).resolve().parent
_NAME = f"torch-{torch.__version__.partition('+')[0]}-py{sys.version_info[0]}{sys.version_info[1]}"
_BUILT = Path(os.environ.get("BLUEFOG_EMULATOR", _TESTS.parent / "build" / _NAME / "emulator"))
_PRELOADED = ("libcuda.so.1", "libnvidia-ml.so.1", "libnccl.so.2")

needs_cuda_module = pytest.mark.skipif(
    load_cuda() is None, reason="bluefog_pg was built without CUDA"
)


def environment(gpus: int = 1) -> dict[str, str]:
    """For a process that is to see so many of them."""
    if not _BUILT.is_dir():
        raise FileNotFoundError(f"there is no {_BUILT}: make emulator builds it")
    site = str(_TESTS / "emulator" / "site")
    return os.environ | {
        "LD_PRELOAD": ":".join(str(_BUILT / name) for name in _PRELOADED),
        "PYTHONPATH": os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")])),
        "EMULATED_OPERATORS": str(_BUILT / "libemulated_operators.so"),
        "EMULATED_GPUS": str(gpus),
        "OMP_NUM_THREADS": "1",
    }


def run(*command: object, gpus: int = 1, cwd: Path = _TESTS, seconds: float = 300) -> str:
    """The output of a Python program, which must end well."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment(gpus),
        timeout=seconds,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("gpus", type=int, metavar="GPUS")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="as after python")
    args = parser.parse_args()
    os.execve(sys.executable, [sys.executable, *args.program], environment(args.gpus))
