"""Every code block of the README and the docs is run, or, of make and pip, exists."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import emulated_ranks
import pytest
import torch.distributed as dist
from emulated import needs_cuda_module
from ranks import run_ranks
from torch.distributed.run import parse_args as parse_torchrun

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if not any(part.startswith("_") for part in page.relative_to(ROOT).parts)  # made by conf.py
    ),
]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)
]
PYTHON = [text for language, text in BLOCKS if language == "python"]
SAVED = {"train.py", "check.py"}  # what pages say to save a block as
SHELL = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]


def run_block(rank, nproc, source, folder):
    os.chdir(folder)
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    dist.destroy_process_group()


@pytest.mark.parametrize("source", PYTHON, ids=lambda text: text.splitlines()[3][:40])
def test_python_block(source, tmp_path):
    run_ranks(run_block, 4, source, str(tmp_path))


@needs_cuda_module
@pytest.mark.parametrize(
    "source", [text for text in PYTHON if '"cuda"' in text], ids=lambda text: text.splitlines()[0]
)
def test_python_block_on_gpus(source, tmp_path):
    emulated_ranks.run_ranks(run_block, 4, source, str(tmp_path))


@pytest.mark.parametrize("line", SHELL)
def test_command(line, tmp_path):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        subprocess.run([*words, "-n"], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "bluefog-pg":
        (tmp_path / "mine.txt").write_text("0 1\n1 2\n2 3\n3 0\n1 0\n2 1\n3 2\n0 3\n")
        command = [sys.executable, "-m", "bluefog_pg", *words[1:]]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        for picture in re.findall(r"\S+\.png", line):
            assert (tmp_path / picture).stat().st_size > 10_000
    elif words[0] == "python":
        subprocess.run([sys.executable, ROOT / words[1], "--help"], check=True, capture_output=True)
    elif words[0] == "torchrun":
        assert parse_torchrun(words[1:]).training_script in SAVED
    else:
        assert words[:2] == ["pip", "install"] and (ROOT / "setup.py").exists()
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"\[(\w+)\]", line):
            assert extra in extras["optional-dependencies"]


def headings(page):
    """The names by which links lead to its headings."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        if target.startswith("https://"):
            continue
        assert (page.parent / file).exists() or not file, target
        if heading:
            assert heading in headings((page.parent / file) if file else page), target


def test_every_block_is_of_a_kind_that_is_checked():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(PYTHON) >= 2 and len(SHELL) >= 3
