"""Programs as BlueFog's users write them; only the import lines are other ones."""

import re
import runpy
from pathlib import Path

import pytest
from ranks import run_ranks

PROGRAMS = sorted(Path(__file__).parent.joinpath("programs").glob("*.py"))
MACHINES = {"BLUEFOG_NODES_PER_MACHINE": "4"}


def run_program(rank, nproc, path):
    runpy.run_path(path, run_name="__main__")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program(program):
    run_ranks(run_program, 4, str(program), timeout=120)


def test_trains_on_two_machines():
    training = next(path for path in PROGRAMS if path.stem == "training")
    run_ranks(run_program, 8, str(training), timeout=120, env=MACHINES)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_differs_in_the_import_line_only(program):
    """bluefog.torch and bluefog.common.topology_util are all that it takes of BlueFog."""
    lines = [line for line in program.read_text().splitlines() if "bluefog_pg" in line]
    assert lines[0] == "import bluefog_pg.torch as bf"
    assert lines[1:] == ["from bluefog_pg.torch import topology_util"]
    assert re.search(r"^assert ", program.read_text(), re.M)
