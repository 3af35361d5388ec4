"""benchmarks/training.py runs, and says what it has measured."""

import json
import subprocess
import sys
from pathlib import Path

from bluefog_pg import algorithms

SEND_NOTHING_YET = {  # within four steps; with pull_get it is others that read
    *("diloco", "gasloc", "hierarchical_sgd", "local_sgd", "noloco", "pull_get", "slowmo")
}
FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(name, *options):
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--quick", *options],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_of_every_algorithm(tmp_path):
    file = tmp_path / "rows.json"
    chosen = ["--data", "digits", "--topologies", "ring", "--ranks", "4", "--json", str(file)]
    out = run("training", *chosen)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["algorithm"] for row in rows] == ["DDP on gloo", *algorithms.names()]
    assert out.count("\n| ") == 1 + len(rows)
    for row in rows:
        (result,) = row["results"]
        assert 0 < result["accuracy"] < 100 and result["ms"] > 0
        assert (result["sent"] > 0) == (row["algorithm"] not in SEND_NOTHING_YET)


def test_other_data():
    data = ["breast_cancer", "fashion_mnist", "pydoc_text"]
    out = run("training", "--data", *data, "--mixed", "--ranks", "2", "--algorithms", "atc")
    missing = "# No rows of fashion_mnist: apt-get install dataset-fashion-mnist" in out
    assert out.count("| atc | one_peer_exponential |") == 3 - missing
    assert out.count("| DDP on gloo | - |") == 3 - missing


def test_a_slow_rank():
    chosen = ["--data", "digits", "--ranks", "2", "--algorithms", "atc", "ad_psgd"]
    out = run("training", *chosen, "--slow", "10")
    ms = {row.split(" | ")[0]: float(row.split(" | ")[-1]) for row in rows_of(out)}
    assert ms["atc"] > ms["ad_psgd"] + 5 and ms["ad_psgd"] > 5  # of a few steps


def rows_of(out):
    return [row.strip("| ") for row in out.splitlines() if row.startswith("| ") and "%" not in row]
