"""PyTorch's own distributed suite, from inside the installed wheel, with our backend under test.

The suite asks its environment which backend to use, and its skip decorators compare that name with
"gloo" and "nccl" while the class body runs. So it is imported as the suite of one of these, the
reference, and then its constant BACKEND is replaced by a string that is our name and merely
compares equal to the reference's. Nothing in torch.distributed is patched: the groups under test
are made by init_process_group.

UPSTREAM_BACKEND is the backend to test, UPSTREAM_REFERENCE the reference; the rest of the
environment is set by run_upstream.py. Both the runner and the server that forks the ranks import
this module.
"""

import json
import os
import sys
import traceback
import unittest
from contextlib import suppress
from pathlib import Path

NAME = os.environ["UPSTREAM_BACKEND"]
REFERENCE = os.environ["UPSTREAM_REFERENCE"]
os.environ["BACKEND"] = REFERENCE
os.environ["INIT_METHOD"] = "file:///replaced-for-each-test"  # un-gates tests that need file://

import torch  # noqa: E402
from torch.testing._internal import common_distributed  # noqa: E402

for feature in ("ddp", "subgroup", "plugin"):
    common_distributed.DistTestCases.backend_feature[feature].add(NAME)
common_distributed.TIMEOUT_OVERRIDE.clear()  # the runner's timeout is for all tests

from torch.testing._internal.distributed import distributed_test as upstream  # noqa: E402


class _Name(str):
    """Our backend's name, which passes the comparisons that gate tests for the reference."""

    def __eq__(self, other):
        return str.__eq__(self, other) or other == REFERENCE

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


upstream.BACKEND = _Name(NAME)
os.environ["BACKEND"] = NAME  # some tests read it again


def _profiling_event(event_name, *args, _original=upstream.get_profiling_event, **kwargs):
    """A collective that we delegate to gloo shows in a profile as gloo:all_reduce and so on."""
    names = {event_name, event_name.replace(f"{NAME}:", f"{REFERENCE}:")}  # who served it shows
    events = [event for name in names for event in _original(name, *args, **kwargs)]
    for event in events:
        event.name = event.name.replace(f"{REFERENCE}:", f"{NAME}:")
    return events


upstream.get_profiling_event = _profiling_event
for supported in (
    upstream.PROFILING_SUPPORTED_BACKENDS,
    upstream.SEND_RECV_PROFILING_SUPPORTED_BACKENDS,
):
    if REFERENCE == "nccl" and hasattr(torch.distributed.distributed_c10d, "ProcessGroupNCCL2"):
        # There "nccl" names its events all_reduce, not nccl:all_reduce, and fails: for both, only
        # the results are looked at.
        supported.remove("nccl")
    else:
        supported.append(NAME)


class TestUpstream(upstream.TestDistBackend, upstream.DistributedTest._DistTestBase):
    """One instance per test: in the runner it starts the ranks, in a rank it is the test."""

    def setUp(self):
        super().setUp()
        # The server that forks the ranks has the environment of the first test; TEMP_DIR changes.
        self._environment = Path(self.file_name + ".env")
        self._environment.write_text(json.dumps(dict(os.environ)))
        # A forked rank finds torch and this module imported: 0.3 s a test, not 5.
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._start_processes(context.Process)

    def tearDown(self):
        super().tearDown()
        for path in (self._environment, Path(self.file_name)):
            with suppress(FileNotFoundError):
                path.unlink()

    @classmethod
    def _run(cls, rank, test_name, file_name, pipe, **kwargs):
        os.environ.update(json.loads(Path(file_name + ".env").read_text()))
        upstream.INIT_METHOD = os.environ["INIT_METHOD"]
        try:
            super()._run(rank, test_name, file_name, pipe, **kwargs)
        except Exception:
            if pipe.closed:
                raise
            # Upstream leaves what fails before the test, such as making the group, to stderr.
            pipe.send(traceback.format_exc())
            sys.exit(cls.TEST_ERROR_EXIT_CODE)

    def _check_return_codes(self, fn, elapsed_time):
        """Upstream looks at the exit code of rank 0 only; here a crash of any rank counts."""
        codes = [process.exitcode for process in self.processes]
        try:
            super()._check_return_codes(fn, elapsed_time)
        except unittest.SkipTest:
            self.assertEqual(len(set(codes)), 1, f"ranks disagree about skipping: {codes}")
            raise
        if fn not in self.skip_return_code_checks:
            self.assertEqual(len(set(codes)), 1, f"exit codes of the ranks: {codes}")
