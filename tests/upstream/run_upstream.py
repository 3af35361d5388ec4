"""Runs PyTorch's own distributed suite against one backend, and writes each test's outcome.

    python run_upstream.py bluefog                         the whole suite
    python run_upstream.py gloo test_barrier test_gather   these tests, on torch's own backend
    python run_upstream.py bluefog --results out.jsonl     outcomes for compare.py to read
    python ../emulated.py 3 run_upstream.py bluefog --reference nccl    nccl's tests, on 3 GPUs

The first line of the results names torch, backend, ranks and tests; each further line is one test:
    {"test": name, "outcome": "pass" | "fail" | "skip", "seconds": s, "detail": reason or traceback}
A line is written when its test ends, so that a run that crashes shows how far it came.
Needs numpy and expecttest. The exit code is 0 if nothing failed.
"""

import argparse
import atexit
import json
import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path

RANKS = 3  # what upstream's own CI uses; several tests want an odd number or more than two
TEST_TIMEOUT = 150  # s for one test, on a busy machine


def main():
    args = _parse()
    temp = tempfile.mkdtemp(prefix="upstream-")
    atexit.register(shutil.rmtree, temp, ignore_errors=True)  # after multiprocessing's own exit
    _set_environment(args.backend, args.reference, Path(temp))
    suite = _load(args.tests)
    with open(args.results, "w", buffering=1) as results:
        _write(results, **_header(args.backend, suite))
        runner = unittest.TextTestRunner(verbosity=2, resultclass=_recorder(results))
        return 0 if runner.run(suite).wasSuccessful() else 1


def _parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend", help="as given to init_process_group")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="names of tests; default: all")
    parser.add_argument(
        "--reference", default="gloo", choices=("gloo", "nccl"), help="whose tests (default gloo's)"
    )
    parser.add_argument("--results", default=os.devnull, help="file for the outcomes, JSON lines")
    return parser.parse_intermixed_args()


def _set_environment(backend, reference, temp):
    """All of it is read when torch or the suite is imported, here or in the ranks' server."""
    (temp / "barrier").mkdir()  # upstream's ranks meet in this folder
    here = str(Path(__file__).resolve().parent)
    python_path = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {
        "UPSTREAM_BACKEND": backend,
        "UPSTREAM_REFERENCE": reference,
        "TEMP_DIR": str(temp),
        "TMPDIR": str(temp),
        "PYTHONPATH": os.pathsep.join(python_path),  # the ranks' server does not get our sys.path
    }
    if reference == "gloo":  # with fewer GPUs than ranks upstream skips its CPU tests too
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:  # the ranks are forked from a server that counts GPUs, and must not initialise CUDA
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("WORLD_SIZE", str(RANKS))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("DISTRIBUTED_TESTS_DEFAULT_TIMEOUT", str(TEST_TIMEOUT))
    tempfile.tempdir = None  # read TMPDIR again


def _load(names):
    from upstream_suite import TestUpstream

    if not names:
        return unittest.defaultTestLoader.loadTestsFromTestCase(TestUpstream)
    unknown = [name for name in names if not hasattr(TestUpstream, name)]
    if unknown:
        sys.exit(f"The suite of this torch has no test named {', '.join(unknown)}.")
    return unittest.TestSuite(TestUpstream(name) for name in names)


def _header(backend, suite):
    import torch

    return {
        "torch": torch.__version__,
        "backend": backend,
        "ranks": int(os.environ["WORLD_SIZE"]),
        "tests": [_name(test) for test in suite],
    }


def _name(test):
    return test.id().rpartition(".")[2]


def _write(results, **line):
    results.write(json.dumps(line) + "\n")


def _recorder(results):
    """A class of unittest results that writes down each outcome as well as printing it."""

    class Recorder(unittest.TextTestResult):
        def startTest(self, test):
            self._started = time.monotonic()
            super().startTest(test)

        def _record(self, test, outcome, detail=""):
            seconds = round(time.monotonic() - self._started, 2)
            _write(results, test=_name(test), outcome=outcome, seconds=seconds, detail=detail)

        def addSuccess(self, test):
            super().addSuccess(test)
            self._record(test, "pass")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self._record(test, "skip", reason)

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self._record(test, "fail", self._exc_info_to_string(err, test))

        def addError(self, test, err):
            super().addError(test, err)
            self._record(test, "fail", self._exc_info_to_string(err, test))

    return Recorder


if __name__ == "__main__":
    sys.exit(main())
