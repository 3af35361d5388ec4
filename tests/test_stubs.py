"""bluefog_pg/_C.pyi and _C_cuda.pyi say what the extensions have."""

import ast
from pathlib import Path

import pytest

import bluefog_pg
from bluefog_pg._extension import load, load_cuda

STUB = Path(bluefog_pg.__file__).parent / "_C.pyi"


def own_names(cls):
    """Public names, _state and the constructor that the class itself defines."""
    wanted = {name for name in vars(cls) if not name.startswith("_")} | {"_state", "__eq__"}
    return wanted & set(vars(cls))


def declared_names(node):
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    names |= {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    return names - {"__init__"}


def test_classes_and_members_are_the_extensions():
    extension = load()
    classes = {n.name: n for n in ast.parse(STUB.read_text()).body if isinstance(n, ast.ClassDef)}
    assert set(classes) == {name for name in vars(extension) if not name.startswith("_")}
    for name, node in classes.items():
        assert declared_names(node) == own_names(getattr(extension, name)), name


def test_argument_names_are_the_extensions():
    extension = load()
    for node in ast.parse(STUB.read_text()).body:
        for item in getattr(node, "body", []):
            if not isinstance(item, ast.FunctionDef) or item.name.startswith("__"):
                continue
            member = getattr(getattr(extension, node.name), item.name)
            arguments = [argument.arg for argument in item.args.args[1:]]
            signature = (member.__doc__ or "").partition("\n")[0]
            if arguments and not isinstance(member, property) and "arg0" not in signature:
                positions = [signature.find(f"{argument}:") for argument in arguments]
                assert -1 not in positions and positions == sorted(positions), signature


def test_functions_of_the_cuda_extension():
    extension = load_cuda() or pytest.skip("not built here")
    stub = ast.parse(STUB.with_name("_C_cuda.pyi").read_text())
    declared = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert declared == {name for name in vars(extension) if not name.startswith("_")}
