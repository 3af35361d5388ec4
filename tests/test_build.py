"""What a build says when something is missing: one sentence each, and the command to run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "grep", "cat")  # what scripts/preflight calls besides the tools it looks for


@pytest.fixture
def path(tmp_path):
    """A folder to be the whole PATH, with this Python and a g++ and cmake that look good."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool))
    script(tmp_path / "python3", f'exec "{sys.executable}" "$@"')
    script(tmp_path / "cmake", "exit 0")
    compiler(tmp_path, "12.2.0")
    return tmp_path


def script(file, text):
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def compiler(path, version, gtest=True):
    """Puts a g++ there that gives this version and finds <gtest/gtest.h>, or does not."""
    preprocess = "cat; exit 0" if gtest else "exit 1"
    script(
        path / "g++",
        f"case $1 in -dumpfullversion) echo {version} ;; -E) {preprocess} ;; esac",
    )


def preflight(path, what="test", python="python3", venv="no-such-venv"):
    """Returns the sentences; the exit status must go with them."""
    command = [str(ROOT / "scripts/preflight"), what, python, str(venv)]
    done = subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True)
    sentences = done.stderr.splitlines()
    assert done.returncode == (1 if sentences else 0)
    return sentences


def test_nothing_is_missing(path):
    assert preflight(path) == []


def test_cmake_is_missing(path):
    (path / "cmake").unlink()
    assert preflight(path) == ["cmake is missing: apt-get install cmake"]


def test_compiler_is_missing(path):
    (path / "g++").unlink()
    assert preflight(path, "build") == ["The C++ compiler g++ is missing: apt-get install g++"]


def test_compiler_is_too_old(path):
    compiler(path, "10.2.1")
    (sentence,) = preflight(path)
    assert sentence.startswith("g++ 10.2.1 is too old for C++20, which needs 11 or newer: apt-get")


def test_googletest_is_missing_for_tests_only(path):
    compiler(path, "12.2.0", gtest=False)
    assert preflight(path, "test") == ["GoogleTest is missing: apt-get install libgtest-dev"]
    assert preflight(path, "build") == []


def test_python_is_missing(path):
    (sentence,) = preflight(path, python="python9")
    assert sentence == (
        "python9 is missing or does not run: apt-get install python3 python3-venv python3-dev"
    )


def test_python_is_too_old(path):
    script(path / "python3", "echo 3.9")
    (sentence,) = preflight(path)
    assert sentence.startswith("python3 is Python 3.9, and bluefog_pg needs 3.11, 3.12 or 3.13: ")


def test_python_without_venv_and_headers(path):
    script(path / "python3", "case $2 in *version_info*) echo 3.11 ;; *) exit 1 ;; esac")
    assert preflight(path) == [
        "Python's venv module is missing for python3: apt-get install python3-venv",
        "Python.h is missing for python3: apt-get install python3-dev",
    ]


def test_everything_is_said_at_once(path):
    (path / "cmake").unlink()
    (path / "g++").unlink()
    assert len(preflight(path, "build", python="python9")) == 3


def test_environment_of_another_python(path, tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    script(venv / "bin/python", "echo 3.99")
    (sentence,) = preflight(path, venv=venv)
    assert sentence.startswith(f"{venv} belongs to Python 3.99, and python3 is ")


def test_setup_without_torch():
    """-I -S: a Python that sees no installed package, as in an isolated build."""
    command = [sys.executable, "-I", "-S", "setup.py", "dist_info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("torch cannot be imported in this build: ")
    assert "`pip install --no-build-isolation .`" in done.stderr


def configure(tmp_path, *options):
    """Runs cmake on the sources, which must fail; returns what it said, on one line."""
    cmake = shutil.which("cmake")
    command = [cmake, "-S", str(ROOT), "-B", str(tmp_path), f"-DPython_EXECUTABLE={sys.executable}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_cmake_without_googletest(tmp_path):
    said = configure(tmp_path, "-DBLUEFOG_TESTS=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON")
    assert "GoogleTest is missing: apt-get install libgtest-dev" in said


def test_cmake_with_cuda_asked_for_and_no_nvcc(tmp_path):
    said = configure(tmp_path, "-DBLUEFOG_CUDA=ON", "-DBLUEFOG_NVCC=")
    assert "BLUEFOG_CUDA is ON, but" in said


def test_cmake_with_unknown_sanitizer(tmp_path):
    assert "SANITIZE is 'adress': use" in configure(tmp_path, "-DSANITIZE=adress")


def test_core_cannot_include_torch_distributed():
    """The core's include path has c10 and torch/headeronly, nothing else of torch."""
    (tree, *_) = sorted(ROOT.glob("build/torch-*/core_include")) or pytest.skip("no build tree")
    assert sorted(p.relative_to(tree).as_posix() for p in tree.glob("*")) == ["c10", "torch"]
    assert [p.name for p in (tree / "torch").iterdir()] == ["headeronly"]
