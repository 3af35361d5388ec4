"""Runs PyTorch's own distributed suite on gloo and on bluefog, and compares test by test.

    python compare.py                       the whole suite, about 3 minutes
    python compare.py --quick               a subset, about 1 minute
    python compare.py --json report.json    the numbers as JSON as well

Every test that passes on gloo must pass on bluefog, except those in expectations.KNOWN, which must
fail. Bluefog gets the tests that gloo did not skip; to skip one of them is an error. A test that
fails is repeated once before it counts. The last line reads "N passed, N failed, N skipped", the
exit code is 0 if nothing failed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from expectations import LEAST_RUN_BY_GLOO, known_failures, quick_tests
from suite_run import SuiteRun, repeat_failures, run_suite

MOST_TRACEBACKS = 5  # the logs have the rest


@dataclass(frozen=True)
class Difference:
    test: str
    gloo: str
    bluefog: str
    reason: str
    error: bool  # whether it makes the comparison fail


def main():
    args = _parse()
    logs = Path(tempfile.mkdtemp(prefix="bluefog-upstream-"))
    gloo = run_suite("gloo", quick_tests() if args.quick else [], args.ranks, logs)
    repeat_failures(gloo, gloo.failed)
    if not gloo.ran:
        sys.exit(f"gloo ran none of {len(gloo.tests)} tests; see {gloo.log}")
    known = known_failures(gloo.torch)
    bluefog = run_suite("bluefog", gloo.ran, args.ranks, logs)
    repeat_failures(bluefog, [test for test in bluefog.failed if test not in known])
    differences = compare(gloo, bluefog, known) + check_baseline(gloo, args)
    errors = [difference for difference in differences if difference.error]
    passed = len(set(bluefog.passed) - {error.test for error in errors})
    _print_report(gloo, bluefog, differences)
    if args.json:
        _write_json(args.json, gloo, bluefog, differences)
    if errors:
        print(f"\nThe output of the suite is in {logs}/")
    else:
        shutil.rmtree(logs)
    print(f"{passed} passed, {len(errors)} failed, {len(gloo.skipped)} skipped")
    return 1 if errors else 0


def _parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only expectations.QUICK")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    parser.add_argument("--ranks", type=int, default=3, help="processes per test (default 3)")
    return parser.parse_args()


def compare(gloo: SuiteRun, bluefog: SuiteRun, known: dict[str, str]) -> list[Difference]:
    """What is to be said about the tests that gloo ran, and about those in `known`."""
    differences = []
    for test in gloo.ran:
        ours, theirs = bluefog.outcome(test), gloo.outcome(test)
        if verdict := _verdict(theirs, ours, known.get(test)):
            differences.append(Difference(test, theirs, ours, *verdict))
    for test in known:
        if test not in gloo.ran:
            reason = "is in expectations.KNOWN, but gloo does not run it"
            differences.append(Difference(test, gloo.outcome(test), "-", reason, True))
    return differences


def _verdict(theirs, ours, known):
    """(reason, whether it is an error), or None where both pass and should."""
    if ours == "skip":
        return "gloo runs it, bluefog skips it", True
    if known and ours == "pass":
        return "is in expectations.KNOWN, but passes: take it out", True
    if theirs == "fail":
        return "fails on gloo itself", False
    if ours == "fail":
        return (known, False) if known else ("passes on gloo", True)
    return None


def check_baseline(gloo, args):
    """Guards against a gloo run that skips for a reason of its own, and so proves nothing."""
    if args.quick:
        reason = "is in expectations.QUICK, but gloo skips it"
        return [Difference(test, "skip", "-", reason, True) for test in gloo.skipped]
    if len(gloo.ran) < LEAST_RUN_BY_GLOO:
        reason = f"gloo ran {len(gloo.ran)} tests, fewer than {LEAST_RUN_BY_GLOO}"
        return [Difference("(the whole suite)", "-", "-", reason, True)]
    return []


def _print_report(gloo, bluefog, differences):
    print(f"\ntorch {gloo.torch}, {gloo.ranks} ranks")
    print(f"{'':10}{'tests':>7}{'ran':>7}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>8}")
    for run in (gloo, bluefog):
        print(
            f"{run.backend:10}{len(run.tests):7}{len(run.ran):7}{len(run.passed):8}"
            f"{len(run.failed):8}{len(run.skipped):9}{run.seconds:7.0f}s"
        )
        for test in run.flaky:
            print(f"{'':10}{test} failed, and passed when repeated")
    for d in differences:
        kind = "ERROR" if d.error else "known"
        print(f"{kind}: {d.test}: gloo {d.gloo}, bluefog {d.bluefog}: {d.reason}")
    tracebacks = [d.test for d in differences if d.error and d.bluefog == "fail"]
    for test in tracebacks[:MOST_TRACEBACKS]:
        print(f"\n--- {test} on bluefog\n{bluefog.outcomes[test].detail}")


def _write_json(path, gloo, bluefog, differences):
    report = {"torch": gloo.torch, "ranks": gloo.ranks}
    report |= {run.backend: run.summary() for run in (gloo, bluefog)}
    report["differences"] = [asdict(difference) for difference in differences]
    Path(path).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
