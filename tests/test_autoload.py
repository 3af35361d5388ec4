"""The registration of "bluefog" with torch: in every order of imports, and with everything broken.

Each test runs a script in a fresh interpreter, on the installed package or on a damaged copy of it.
"""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bluefog_pg

PACKAGE = Path(bluefog_pg.__file__).parent
GROUPS = ("torch.backends", "torch.distributed.backends")
REBUILD = "run `pip install --no-build-isolation --no-deps .` in the bluefog_pg source folder."

INIT = """
import torch, torch.distributed as dist
dist.init_process_group("bluefog", store=dist.HashStore(), rank=0, world_size=1)
x = torch.ones(3)
dist.all_reduce(x)
assert x.tolist() == [1, 1, 1]
dist.destroy_process_group()
"""
REGISTERED = """
import torch.distributed as dist
assert dist.Backend.backend_list.count("bluefog") == 1
assert dist.Backend._plugins["BLUEFOG"].creator_fn.__module__ == "bluefog_pg._autoload"
"""


def run(script, *options, path=None, **env):
    """Runs the script; returns (exit status, standard output, standard error)."""
    hidden = ("PYTHONPATH", "PYTHONWARNINGS", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    if path:
        environ["PYTHONPATH"] = str(path)
    command = [sys.executable, "-P", *options, "-c", script]
    done = subprocess.run(command, env=environ | env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def succeeds(script, *options, **kwargs):
    status, out, err = run(script, *options, **kwargs)
    assert status == 0, err
    return out


def last_line(script, **kwargs):
    """Returns the last line of the traceback that the script ends with."""
    status, _, err = run(script, **kwargs)
    assert status == 1, err
    return err.strip().splitlines()[-1]


@pytest.fixture
def copy(tmp_path):
    """A copy of the installed package, to be put before it on PYTHONPATH."""
    shutil.copytree(PACKAGE, tmp_path / "bluefog_pg")
    return tmp_path / "bluefog_pg"


@pytest.mark.parametrize("group", GROUPS)
def test_entry_point_is_installed(group):
    (entry,) = importlib.metadata.entry_points(group=group, name="bluefog")
    assert entry.value == "bluefog_pg._autoload:register"


@pytest.mark.parametrize(
    "imports",
    ["import torch", "import bluefog_pg", "import torch, bluefog_pg", "import bluefog_pg, torch"],
)
def test_order_of_imports(imports):
    # A second registration, or anything else to warn of, would end the script.
    strict = "import warnings; warnings.simplefilter('error', RuntimeWarning)\n"
    succeeds(strict + imports + REGISTERED)


def test_a_script_that_imports_only_torch():
    succeeds(INIT)


def test_autoload_off_and_package_imported():
    succeeds("import bluefog_pg" + INIT, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_autoload_off_and_package_not_imported():
    """torch >= 2.14 looks for the name in the second group of entry points; before, nobody does."""
    import torch.distributed as dist

    if hasattr(dist.Backend, "_ensure_backend_registered"):
        succeeds(INIT, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    else:
        assert "bluefog" in last_line(INIT, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_import_torch_loads_nothing_native_and_no_networkx():
    script = """
import sys, torch
assert "bluefog_pg" in sys.modules, "the entry point was not called"
assert "/bluefog_pg/" not in open("/proc/self/maps").read()
import bluefog_pg
loaded = {name for name in sys.modules if name.startswith("bluefog_pg.")}
assert loaded == {"bluefog_pg._autoload"}, loaded
print("networkx" in sys.modules)
"""
    without = "import sys, torch; print('networkx' in sys.modules)"
    assert succeeds(script) == succeeds(without, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_broken_extension_breaks_the_group_but_not_torch(copy):
    (module,) = copy.glob("_C.*.so")
    module.write_bytes(b"not a shared library\n" * 100)
    assert succeeds("import torch; print(torch.ones(2).sum().item())", path=copy.parent) == "2.0\n"
    line = last_line(INIT, path=copy.parent)
    assert line.startswith("ImportError: The bluefog_pg extension does not load (")
    assert str(module) in line
    assert line.endswith(REBUILD)


def test_missing_extension(copy):
    (copy / "_build_info.py").unlink()
    line = last_line(INIT, path=copy.parent)
    assert line == f"ImportError: The bluefog_pg extension is not built: {REBUILD}"


def test_extension_built_for_another_torch(copy):
    import torch

    (copy / "_build_info.py").write_text('TORCH_VERSION = "2.99.1+cpu"\n')
    (module,) = copy.glob("_C.*.so")
    module.write_bytes(b"must not be opened")
    assert last_line(INIT, path=copy.parent) == (
        "ImportError: bluefog_pg was built for torch 2.99.1+cpu, but the torch imported is "
        f"{torch.__version__}: to rebuild it, {REBUILD}"
    )


@pytest.mark.parametrize("options", [(), ("-W", "error::RuntimeWarning")])
def test_a_failure_to_register_is_a_warning(copy, options):
    """Even where warnings are errors, `import torch` works."""
    text = (copy / "_autoload.py").read_text()
    assert text.count("NAME, create_backend") == 1
    (copy / "_autoload.py").write_text(text.replace("NAME, create_backend", "1 // 0"))
    status, out, err = run("import torch; print('here')", *options, path=copy.parent)
    assert (status, out) == (0, "here\n")
    assert "bluefog_pg could not be registered with torch.distributed: ZeroDivisionError" in err


def test_name_taken_by_another_package(tmp_path):
    (tmp_path / "rival.py").write_text("def create(*args): ...\n")
    script = """
import rival, torch.distributed as dist, warnings
dist.Backend.register_backend("bluefog", rival.create, devices=["cpu"])
with warnings.catch_warnings(record=True) as caught:
    import bluefog_pg
(warning,) = caught
print(warning.message)
assert dist.Backend._plugins["BLUEFOG"].creator_fn is rival.create
"""
    out = succeeds(script, path=tmp_path, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert out.startswith('The torch.distributed backend name "bluefog" is taken by rival: ')


def test_torch_without_distributed():
    script = """
import torch.distributed as dist, warnings
warnings.simplefilter("error")
dist.is_available = lambda: False
import bluefog_pg
assert "bluefog" not in dist.Backend.backend_list
"""
    succeeds(script, TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_public_names_agree():
    """Type checkers read the imports under TYPE_CHECKING, Python reads _HOME, people read dir()."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == {name: f"bluefog_pg.{home}" for name, home in bluefog_pg._HOME.items()}
    assert sorted(typed) == bluefog_pg.__all__
    assert set(dir(bluefog_pg)) > set(typed)


@pytest.mark.parametrize("name", bluefog_pg.__all__)
def test_public_name_is_there(name):
    assert getattr(bluefog_pg, name).__name__ == name


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'bluefog_pg' has no attribute 'rign'"):
        _ = bluefog_pg.rign
