"""tests/upstream/compare.py calls an error what is one. (The comparison itself: make test.)"""

import importlib
from argparse import Namespace
from pathlib import Path

import pytest


@pytest.fixture
def upstream(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).with_name("upstream"))
    names = ("compare", "suite_run", "expectations")
    return Namespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture(params=["gloo", "nccl"])
def reference(request):
    return request.param


def make_run(upstream, backend, reference, **outcomes):
    outcomes = {test: upstream.suite_run.Outcome(o, "") for test, o in outcomes.items()}
    return upstream.suite_run.SuiteRun(backend, reference, "2.11.0", 3, Path("log"), 1.0, outcomes)


@pytest.mark.parametrize(
    ("theirs", "ours", "known", "error"),
    [
        ("pass", "pass", None, None),  # nothing to say
        ("pass", "fail", None, True),
        ("pass", "fail", "why", False),
        ("pass", "pass", "why", True),  # so that the table of known failures cannot rot
        ("pass", "skip", None, True),
        ("pass", "skip", "why", True),
        ("fail", "-", None, False),
        ("skip", "-", "why", True),
    ],
)
def test_verdict(upstream, reference, theirs, ours, known, error):
    outcomes = {} if ours == "-" else {"t": ours}
    differences = upstream.compare.compare(
        make_run(upstream, reference, reference, t=theirs),
        make_run(upstream, "bluefog", reference, **outcomes),
        {"t": known} if known else {},
    )
    assert [d.error for d in differences] == ([] if error is None else [error])
    assert all(known or reference in d.reason for d in differences)


@pytest.mark.parametrize("outcome", ["skip", "fail"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_suite_that_the_reference_does_not_pass_proves_nothing(
    upstream, reference, outcome, quick
):
    run = make_run(upstream, reference, reference, a=outcome, b="pass")
    least = upstream.expectations.EXPECTATIONS[reference].least_passed
    differences = upstream.compare.check_baseline(run, least, quick)
    assert [d.error for d in differences] == [True]


def test_known_failures_depend_on_the_version_of_torch(upstream):
    known = upstream.expectations.GLOO.known_failures
    assert len(known("2.11.0+cu130")) == 3
    assert list(known("2.15.0+cu132")) == ["test_ddp_logging_data_cpu"]
    assert set(known("2.11.0")) <= set(upstream.expectations.GLOO.quick_tests())


def test_the_quick_subset_names_each_test_once(upstream, reference):
    tests = upstream.expectations.EXPECTATIONS[reference].quick_tests()
    assert len(set(tests)) == len(tests)


def test_gpus_without_the_cuda_module_are_refused(upstream, monkeypatch):
    monkeypatch.setattr("bluefog_pg._extension.load_cuda", lambda: None)
    monkeypatch.setattr("sys.argv", ["compare.py", "--gpus", "--quick"])
    with pytest.raises(SystemExit, match="built without CUDA"):
        upstream.compare.main()
