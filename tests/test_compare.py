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


def make_run(upstream, backend, **outcomes):
    outcomes = {test: upstream.suite_run.Outcome(o, "") for test, o in outcomes.items()}
    return upstream.suite_run.SuiteRun(backend, "2.11.0", 3, Path("log"), 1.0, outcomes)


@pytest.mark.parametrize(
    ("gloo", "bluefog", "known", "error"),
    [
        ("pass", "pass", None, None),  # nothing to say
        ("pass", "fail", None, True),
        ("pass", "fail", "why", False),
        ("pass", "pass", "why", True),  # so that the table of known failures cannot rot
        ("pass", "skip", None, True),
        ("pass", "skip", "why", True),
        ("fail", "fail", None, False),
        ("fail", "pass", None, False),
        ("skip", "-", "why", True),
    ],
)
def test_verdict(upstream, gloo, bluefog, known, error):
    theirs = make_run(upstream, "gloo", t=gloo)
    ours = make_run(upstream, "bluefog", **({} if bluefog == "-" else {"t": bluefog}))
    differences = upstream.compare.compare(theirs, ours, {"t": known} if known else {})
    assert [d.error for d in differences] == ([] if error is None else [error])


def test_a_suite_that_gloo_skips_proves_nothing(upstream):
    skips = make_run(upstream, "gloo", a="skip", b="pass")
    for quick in (True, False):
        differences = upstream.compare.check_baseline(skips, Namespace(quick=quick))
        assert [d.error for d in differences] == [True]


def test_known_failures_depend_on_the_version_of_torch(upstream):
    known = upstream.expectations.known_failures
    assert len(known("2.11.0+cu130")) == 3
    assert list(known("2.15.0+cu132")) == ["test_ddp_logging_data_cpu"]
    assert set(known("2.11.0")) <= set(upstream.expectations.quick_tests())
