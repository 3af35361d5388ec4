"""One run of the suite on one backend, in a process of its own, and its outcomes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

RUNNER = Path(__file__).resolve().with_name("run_upstream.py")
EMULATED = RUNNER.parents[1] / "emulated.py"  # one GPU for each rank
DEADLINE = 1800  # s for one run; each test has its own 150 s
MOST_REPEATS = 10  # more failures than this are no flakiness


@dataclass(frozen=True)
class Outcome:
    outcome: str  # pass, fail or skip
    detail: str  # reason of a skip, traceback of a failure


@dataclass
class SuiteRun:
    """What a backend did with each test. `flaky` failed at first, and passed when repeated."""

    backend: str
    reference: str  # whose tests: gloo's or nccl's
    torch: str
    ranks: int
    log: Path
    seconds: float
    outcomes: dict[str, Outcome]
    flaky: list[str] = field(default_factory=list)

    tests = property(lambda self: list(self.outcomes))
    passed = property(lambda self: self._with("pass"))
    failed = property(lambda self: self._with("fail"))
    skipped = property(lambda self: self._with("skip"))
    ran = property(lambda self: self._with("pass", "fail"))

    def _with(self, *outcomes):
        return [test for test, o in self.outcomes.items() if o.outcome in outcomes]

    def outcome(self, test):
        return self.outcomes[test].outcome if test in self.outcomes else "-"

    def summary(self):
        counts = ("tests", "ran", "passed", "failed", "skipped")
        numbers = {name: len(getattr(self, name)) for name in counts}
        return numbers | {"seconds": round(self.seconds, 1), "flaky": self.flaky}


def run_suite(backend, reference, tests, ranks, logs):
    """Runs the named tests of the reference, or all of them, and returns a SuiteRun.

    Exits with a message if the suite does not start. A test that a crash of the run, or its
    deadline, left without an outcome has failed.
    """
    log, results = _fresh(logs, backend, "log"), _fresh(logs, backend, "jsonl")
    print(f"{backend}: {len(tests) or 'all'} tests, output in {log}", flush=True)
    started = time.monotonic()
    runner = [RUNNER] if reference == "gloo" else [EMULATED, str(ranks), RUNNER]
    arguments = [backend, *tests, "--reference", reference, "--results", str(results)]
    ending = _run([*runner, *arguments], ranks, log)
    header, *lines = results.read_text().splitlines() if results.exists() else [None]
    if header is None:
        sys.exit(f"{log.read_text()}\nThe suite did not start on {backend}: {ending}.")
    header = json.loads(header)
    outcomes = {test: Outcome("fail", f"no outcome: {ending}") for test in header["tests"]}
    for line in map(json.loads, lines):
        outcomes[line["test"]] = Outcome(line["outcome"], line["detail"])
    seconds = time.monotonic() - started
    return SuiteRun(backend, reference, header["torch"], header["ranks"], log, seconds, outcomes)


def repeat_failures(run, tests):
    """Runs these tests again, and lets the second outcome count."""
    if not 0 < len(tests) <= MOST_REPEATS:
        return
    again = run_suite(run.backend, run.reference, tests, run.ranks, run.log.parent)
    run.seconds += again.seconds
    run.flaky += again.passed
    run.outcomes |= again.outcomes


def _fresh(logs, backend, suffix):
    return logs / f"{backend}-{len(list(logs.glob(f'{backend}-*.{suffix}'))) + 1}.{suffix}"


def _run(program, ranks, log):
    """How the run ended, in words. Its folder holds no source tree that could hide a package."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            cwd=log.parent,
            env=os.environ | {"WORLD_SIZE": str(ranks)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its ranks can be ended together with it
        )
        try:
            ending = f"the run ended with exit code {process.wait(DEADLINE)}"
        except subprocess.TimeoutExpired:
            ending = f"the run was stopped after {DEADLINE} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return ending
