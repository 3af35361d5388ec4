"""Runs PyTorch's own distributed suite on gloo and on bluefog, and compares test by test.

    python compare.py                       the whole suite, about 3 minutes
    python compare.py --quick               a subset, about 1 minute
    python compare.py --gpus                beside nccl, on emulated GPUs; with --quick, too
    python compare.py --json report.json    the numbers as JSON as well

Every test that passes on gloo, or nccl, the reference, must pass on bluefog, except those that
expectations.py knows, which must fail. Bluefog gets no others; to skip one of them is an error. A
test that fails is repeated once before it counts. The last line reads "N passed, N failed, N
skipped", the exit code is 0 if nothing failed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from expectations import EXPECTATIONS
from suite_run import SuiteRun, repeat_failures, run_suite

MOST_TRACEBACKS = 5  # the logs have the rest


@dataclass(frozen=True)
class Difference:
    test: str
    reference: str  # the outcome there
    bluefog: str
    reason: str
    error: bool  # whether it makes the comparison fail


def main():
    args = _parse()
    if args.gpus:
        _check_cuda_module()
    name = "nccl" if args.gpus else "gloo"
    expected = EXPECTATIONS[name]
    tests = expected.quick_tests() if args.quick else []
    logs = Path(tempfile.mkdtemp(prefix="bluefog-upstream-"))
    reference = run_suite(name, name, tests, args.ranks, logs)
    repeat_failures(reference, reference.failed)
    if not reference.passed:
        sys.exit(f"{name} passed none of {len(reference.tests)} tests; see {reference.log}")
    known = expected.known_failures(reference.torch)
    if args.quick:
        known = {test: reason for test, reason in known.items() if test in reference.tests}
    bluefog = run_suite("bluefog", name, reference.passed, args.ranks, logs)
    repeat_failures(bluefog, [test for test in bluefog.failed if test not in known])
    differences = compare(reference, bluefog, known)
    differences += check_baseline(reference, expected.least_passed, args.quick)
    errors = [difference for difference in differences if difference.error]
    passed = len(set(bluefog.passed) - {error.test for error in errors})
    _print_report(reference, bluefog, differences)
    if args.json:
        _write_json(args.json, reference, bluefog, differences)
    if errors:
        print(f"\nThe output of the suite is in {logs}/")
    else:
        shutil.rmtree(logs)
    print(f"{passed} passed, {len(errors)} failed, {len(reference.skipped)} skipped")
    return 1 if errors else 0


def _parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only the subset in expectations.py")
    parser.add_argument(
        "--gpus", action="store_true", help="beside nccl, on one emulated GPU for each rank"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    parser.add_argument("--ranks", type=int, default=3, help="processes per test (default 3)")
    return parser.parse_args()


def _check_cuda_module():
    from bluefog_pg._extension import load_cuda

    if load_cuda() is None:
        sys.exit("bluefog_pg was built without CUDA, so that there is nothing to compare on GPUs.")


def compare(reference: SuiteRun, bluefog: SuiteRun, known: dict[str, str]) -> list[Difference]:
    """What is to be said about the tests that the reference ran, and about those in `known`."""
    differences = []
    name = reference.backend
    for test in reference.ran:
        ours, theirs = bluefog.outcome(test), reference.outcome(test)
        if verdict := _verdict(name, theirs, ours, known.get(test)):
            differences.append(Difference(test, theirs, ours, *verdict))
    for test in known:
        if test not in reference.ran:
            reason = f"is known in expectations.py, but {name} does not run it"
            differences.append(Difference(test, reference.outcome(test), "-", reason, True))
    return differences


def _verdict(name, theirs, ours, known):
    """(reason, whether it is an error), or None where both pass and should."""
    if ours == "skip":
        return f"{name} runs it, bluefog skips it", True
    if known and ours == "pass":
        return "is known in expectations.py, but passes: take it out", True
    if theirs == "fail":
        return f"fails on {name} itself", False
    if ours == "fail":
        return (known, False) if known else (f"passes on {name}", True)
    return None


def check_baseline(reference, least_passed, quick):
    """Guards against a reference that skips or fails for a reason of its own: it proves nothing."""
    name, passed = reference.backend, reference.passed
    if quick:
        reason = f"is in the quick subset, but does not pass on {name}"
        others = [test for test in reference.tests if test not in passed]
        return [Difference(test, reference.outcome(test), "-", reason, True) for test in others]
    if len(passed) < least_passed:
        reason = f"{name} passed {len(passed)} tests, fewer than {least_passed}"
        return [Difference("(the whole suite)", "-", "-", reason, True)]
    return []


def _print_report(reference, bluefog, differences):
    name = reference.backend
    print(f"\ntorch {reference.torch}, {reference.ranks} ranks")
    print(f"{'':10}{'tests':>7}{'ran':>7}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>8}")
    for run in (reference, bluefog):
        print(
            f"{run.backend:10}{len(run.tests):7}{len(run.ran):7}{len(run.passed):8}"
            f"{len(run.failed):8}{len(run.skipped):9}{run.seconds:7.0f}s"
        )
        for test in run.flaky:
            print(f"{'':10}{test} failed, and passed when repeated")
    for d in differences:
        kind = "ERROR" if d.error else "known"
        print(f"{kind}: {d.test}: {name} {d.reference}, bluefog {d.bluefog}: {d.reason}")
    tracebacks = [d.test for d in differences if d.error and d.bluefog == "fail"]
    for test in tracebacks[:MOST_TRACEBACKS]:
        print(f"\n--- {test} on bluefog\n{bluefog.outcomes[test].detail}")


def _write_json(path, reference, bluefog, differences):
    report = {"torch": reference.torch, "ranks": reference.ranks, "reference": reference.backend}
    report |= {run.backend: run.summary() for run in (reference, bluefog)}
    report["differences"] = [asdict(difference) for difference in differences]
    Path(path).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
