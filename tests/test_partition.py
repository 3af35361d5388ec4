"""Two ranks in network namespaces of their own, whose link is cut for a while."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.fixture
def links(monkeypatch):
    monkeypatch.syspath_prepend(TESTS.parent / "benchmarks")
    links = importlib.import_module("harness.links")
    if why := links.why_not():
        pytest.skip(why)
    return links


def test_a_cut_link_heals(links):
    start = f"""
import sys
sys.path.append({str(TESTS.parent / "benchmarks")!r})
from harness import links
sys.exit(links.start([{str(TESTS / "partitioned.py")!r}], 120))
"""
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["transport"] == "tcp"
    assert seen["errors"] == ["NeighborTimeoutError"] * 6
    assert all(1.5 <= seconds < 3.5 for seconds in seen["seconds"]), seen
    assert seen["after"] == [0.5] * 3
    print("cut for", sum(seen["seconds"]), "s; healed after", seen["healed"], "s")
    assert seen["healed"] < 10, seen
