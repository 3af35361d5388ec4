"""BlueFog's public names are here, with its parameters and defaults, and in docs/bluefog.md."""

import inspect
import re
from pathlib import Path

import bluefog_names as names
import pytest

import bluefog_pg.torch as bf

SIGNATURES = names.by_name(names.FUNCTIONS) | names.by_name(names.TOPOLOGY_UTIL)
EVERYTHING = SIGNATURES.keys() | {"CommunicationType"}
PAGE = Path(__file__).parents[2] / "docs/bluefog.md"
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def parameters(function):
    signature = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in signature]


def as_written(signature):
    scope = {**vars(bf)}
    exec(f"def {signature.replace('(', '_(', 1)}: ...", scope)
    return parameters(scope[f"{signature.partition('(')[0]}_"])


@pytest.mark.parametrize("name", sorted(SIGNATURES.keys() - names.NOT_YET))
def test_has_bluefogs_parameters(name):
    ours, wanted = parameters(getattr(bf, name)), as_written(SIGNATURES[name])
    assert ours[: len(wanted)] == wanted
    # What is added must not be in the way: keyword-only, with a default.
    added = [(kind, default) for _, kind, default in ours[len(wanted) :]]
    assert all(kind is KEYWORD_ONLY and default is None for kind, default in added)


def test_communication_types():
    assert {kind.name for kind in bf.CommunicationType} == names.COMMUNICATION_TYPES


@pytest.mark.parametrize("name", names.by_name(names.TOPOLOGY_UTIL))
def test_topology_util_has_the_same_functions(name):
    assert getattr(bf.topology_util, name) is getattr(bf, name)


def test_what_is_missing_is_listed():
    assert {name for name in EVERYTHING if not hasattr(bf, name)} == names.NOT_YET


def test_exports_are_bluefogs_names_and_its_module():
    assert {*bf.__all__} == EVERYTHING - names.NOT_YET | {"topology_util"}


def test_every_name_is_in_the_table_of_the_docs():
    rows = re.findall(r"^\| (`bf\..*?) \| (.*?) \|$", PAGE.read_text(), re.M)
    cells = {name: cell for row, cell in rows for name in re.findall(r"`bf\.(\w+)", row)}
    assert cells.keys() == EVERYTHING
    assert {name for name, cell in cells.items() if cell.startswith("not yet")} == names.NOT_YET
