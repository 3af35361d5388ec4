"""What memory allows: passes over tensors of the same size, by all ranks at once.

The fastest of several probes counts: which one it is depends on the size and the machine. A sum of
three tensors in one pass needs a C compiler; without one there is only memmove, which may be slower
than what it bounds, since it fetches what it overwrites.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness.case import Case, Contender

SMALLEST = 1 << 16  # bytes; below that a probe measures its own call
PASSES = {"memmove": 2, "fused": 4, "fused_streaming": 4}  # over S bytes, in a call of each probe
_LIBRARY = "BENCHMARK_FUSED"
_SOURCE = Path(__file__).with_name("fused.c")


def compile_probes(folder: str) -> dict[str, str]:
    """Returns what the ranks' environment must have to use them; {} without a compiler."""
    names = (os.environ.get("CC", "cc"), "cc", "gcc")
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        return {}
    library = os.path.join(folder, "fused.so")
    options = ["-O3", "-march=native", "-shared", "-fPIC", "-o", library]
    done = subprocess.run([compiler, *options, _SOURCE], capture_output=True)
    return {_LIBRARY: library} if done.returncode == 0 else {}


def probes(case: Case) -> dict[str, Callable[[], Contender]]:
    if case.nbytes < SMALLEST:
        return {}
    library = ctypes.CDLL(os.environ.get(_LIBRARY))  # None is this process, which has memmove
    there = [name for name in PASSES if hasattr(library, name)]
    return {name: partial(_probe, case, getattr(library, name), name) for name in there}


def _probe(case: Case, function: Callable[..., object], name: str) -> Contender:
    inputs = [case.x, case.x.clone(), case.x.clone()][: PASSES[name] - 1]
    size = case.numel * case.dtype.itemsize
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (case.y, *inputs)]

    def call(step: int) -> list:
        function(*pointers, ctypes.c_size_t(size))
        return inputs  # which must live as long as this function

    return Contender(call, lambda: None)
