"""bluefog-pg as a whole: help without delay, exit codes, output that is not read to the end."""

import os
import re
import resource
import subprocess
import sys

import pytest

from bluefog_pg import __version__
from bluefog_pg.cli import COMMANDS, main

HELP = [[], ["topo"], *(["topo", name] for name in ("list", "show", "check", "auto")), ["simulate"]]
SLOW = {"torch", "networkx", "numpy", "scipy", "matplotlib", "rich"}


def run(*arguments, code=None):
    """Runs the command in a process of its own."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "bluefog_pg"]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_loads_nothing_that_is_slow(command):
    code = (
        "import sys\n"
        "from bluefog_pg.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"sys.exit(str(sorted(set(sys.modules) & {SLOW!r})))\n"
    )
    done = run(*command, "--help", code=code)
    assert done.stderr.strip() == "[]"
    assert done.stdout.startswith("usage: bluefog-pg")


def test_help_takes_under_a_third_of_a_second():
    def seconds():  # of processor time: a busy machine does not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("topo", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_every_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"\n    {name}\s", text) for name in COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["topo"], ["topo", "show"], ["topo", "auto", "-n", "many"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: bluefog-pg" in capsys.readouterr().err


def test_an_error_is_one_sentence(capsys):
    assert main(["topo", "show", "ring", "-n", "0"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "bluefog-pg: a topology needs at least 1 rank, got n=0\n")


def test_a_reader_that_leaves_early():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "bluefog_pg", "topo", "list"]
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
