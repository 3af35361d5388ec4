"""Every code block of the README is run, or, where it is a command, exists."""

import re
import subprocess
from pathlib import Path

import pytest
import torch.distributed as dist
from ranks import run_ranks

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]


def run_block(rank, nproc, source):
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    dist.destroy_process_group()


@pytest.mark.parametrize("source", PYTHON, ids=lambda text: text.splitlines()[3][:40])
def test_python_block(source):
    run_ranks(run_block, 4, source)


@pytest.mark.parametrize("line", SHELL)
def test_command(line):
    words = line.split("#")[0].split()
    if words[0] == "make":
        subprocess.run([*words, "-n"], cwd=ROOT, check=True, capture_output=True)
    else:
        assert words[:2] == ["pip", "install"] and (ROOT / "setup.py").exists()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_block_is_of_a_kind_that_is_checked():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(PYTHON) >= 2 and len(SHELL) >= 3
