"""bluefog-pg doctor: what it says here, and of what is broken."""

import json

import pytest
import torch

from bluefog_pg import __version__, _build_info, _extension
from bluefog_pg.cli import doctor, main


def facts(capsys, code=0):
    """Runs `bluefog-pg doctor --json`; returns its facts by name."""
    assert main(["doctor", "--json"]) == code
    return {fact["name"]: fact for fact in json.loads(capsys.readouterr().out)}


def test_it_says_what_there_is(capsys):
    told = facts(capsys)
    assert told["bluefog_pg"]["value"] == __version__
    assert torch.__version__ in told["torch"]["value"]
    assert _build_info.TORCH_VERSION in told["extension"]["value"]
    assert told["GPUs"]["value"] == "none visible" or torch.cuda.is_available()
    assert told["shared memory"]["value"].startswith("works")
    assert not any(fact["wrong"] for fact in told.values())


def test_which_kernel_serves_cuda_tensors(capsys):
    told = facts(capsys)
    if torch.version.cuda is None:
        assert told["CUDA tensors"]["value"].startswith("not served")
    elif _build_info.CUDA:
        assert told["CUDA tensors"]["value"] == "nvcc kernel"
        assert f"nvcc {_build_info.CUDA} for" in told["CUDA extension"]["value"]
        assert all(kind in told["CUDA extension"]["value"] for kind in architectures())
    else:
        assert told["CUDA tensors"]["value"] == "ATen operations"
        assert told["CUDA extension"]["value"].startswith("not built")


def architectures():
    return _extension.load_cuda().architectures()


def test_text_is_a_line_for_each_fact(capsys):
    assert main(["doctor"]) == 0
    names = [fact.name for fact in doctor._facts()]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == names


def test_an_extension_that_does_not_load_is_exit_code_1(capsys, monkeypatch):
    def load():
        raise ImportError("The bluefog_pg extension is not built: do this.")

    monkeypatch.setattr(_extension, "load", load)
    told = facts(capsys, code=1)
    assert told["extension"]["wrong"]
    assert told["extension"]["value"] == "The bluefog_pg extension is not built: do this."
    assert "CUDA extension" not in told


@pytest.mark.parametrize("said", [["it is broken"], []])
def test_a_cuda_extension_that_does_not_load_is_exit_code_1(capsys, monkeypatch, said):
    def load_cuda():
        for text in said:
            _extension.warnings.warn(text, RuntimeWarning, stacklevel=2)

    monkeypatch.setattr(_extension, "load_cuda", load_cuda)
    monkeypatch.setattr(_build_info, "CUDA", "13.0")
    told = facts(capsys, code=1)
    assert told["CUDA extension"]["wrong"]
    assert told["CUDA extension"]["value"] == "".join(said) or "is built, but does not load"


def test_variables_that_are_set_are_named(capsys, monkeypatch):
    monkeypatch.setenv("BLUEFOG_SPIN_US", "7")
    assert "BLUEFOG_SPIN_US=7" in facts(capsys)["environment"]["value"]
