"""The pages of docs/ have all that there is: public names, environment variables, options."""

import importlib
import importlib.util
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ENVIRONMENT = (DOCS / "environment.md").read_text()
MODULES = ["bluefog_pg"] + [
    f"bluefog_pg.{name}"
    for name in ("algorithms", "ddp", "simulate", "simulate.methods", "topology", "torch")
]


def referenced():
    """[(module, name)] of the reference's directives; all of a module where it says so."""
    for page in sorted((DOCS / "api").glob("*.md")):
        module = None
        for line in page.read_text().splitlines():
            if match := re.match(r"\.\. (?:currentmodule|automodule):: (\S+)", line):
                module = match[1]
            elif match := re.match(r"\.\. auto\w+:: (\w+)", line):
                yield module, match[1]
            elif line.strip() == ":imported-members:":
                yield from ((module, name) for name in importlib.import_module(module).__all__)


REFERENCED = [
    getattr(importlib.import_module(module), name)
    for module, name in referenced()  # AttributeError: the reference has a name that is gone
]


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module):
    module = importlib.import_module(module)
    members = {name: getattr(module, name) for name in module.__all__}
    missing = {
        name
        for name, member in members.items()
        if not inspect.ismodule(member) and not any(member is each for each in REFERENCED)
    }
    assert not missing, f"give them a line in docs/api: {sorted(missing)}"


def test_the_reference_has_nothing_twice():
    counts = Counter(referenced())
    assert not [name for name, count in counts.items() if count > 1]
    assert len(counts) > 200


def test_the_reference_is_in_its_contents():
    contents = (DOCS / "api/index.md").read_text().split()
    pages = {page.stem for page in (DOCS / "api").glob("*.md")} - {"index"}
    assert pages <= set(contents)


def test_every_page_is_in_the_contents():
    contents = (DOCS / "index.md").read_text().split()
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= set(contents)


def table_rows():
    """{variable: its other cells} of all tables of the page."""
    rows = [line.strip("|").split("|") for line in ENVIRONMENT.splitlines() if line[:2] == "| "]
    return {
        name: [cell.strip() for cell in cells]
        for first, *cells in rows
        for name in re.findall(r"`(\w+)", first)
    }


def sources(*patterns):
    return [path.read_text() for pattern in patterns for path in ROOT.glob(pattern)]


def test_every_environment_variable_is_on_its_page():
    code = sources("csrc/**/*.cc", "csrc/**/*.h", "bluefog_pg/**/*.py", "setup.py")
    read = {name for text in code for name in re.findall(r'"(BLUEFOG_[A-Z_]+)"', text)}
    assert len(read) >= 7
    options = {"BLUEFOG_CUDA", "BLUEFOG_TESTS"}
    assert {name for name in table_rows() if name.startswith("BLUEFOG_")} == read | options


def test_defaults_of_environment_variables():
    header = (ROOT / "csrc/base/env.h").read_text()
    fields = re.findall(r"/// (BLUEFOG_\w+):.*?\n  \S.*? = (.*?);", header, re.S)
    constants = {"true": 1, "false": 0}
    rows = table_rows()
    assert len(fields) == 5
    for name, value in fields:
        assert int(rows[name][0]) == eval(value, constants), name


def test_options_of_cmake_and_make():
    cmake, make = (ROOT / "CMakeLists.txt").read_text(), (ROOT / "Makefile").read_text()
    rows = table_rows()
    for name, default in re.findall(r"^set\((\w+) (\S+) CACHE", cmake, re.M):
        assert rows[name][0] == {'""': "none"}.get(default, default)
    for name, default in re.findall(r'^option\((\w+) ".*" (\w+)\)', cmake, re.M):
        assert rows[name][0] == default
    assert set(re.findall(r"^#   ([A-Z]+)=", make, re.M)) <= rows.keys()
    assert rows["TORCH"][0] == re.search(r"^DEFAULT_TORCH := (\S+)", make, re.M)[1]


def test_links_into_the_repository_lead_to_pages_of_the_site():
    path = DOCS / "_extensions/bring_along.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)

    def links(text, folder):
        return extension.link_to_pages(text, ROOT / folder)

    assert links("[a](../README.md)", "docs") == "[a](/index.md)"
    assert links("[a](docs/windows.md)", ".") == "[a](/windows.md)"
    assert links("[a](../windows.md#memory) b", "docs/api") == "[a](/windows.md#memory) b"
    assert links("[a](../csrc/base/env.h)", "docs") == "[a](/_files/csrc/base/env.h.md)"
    for same in ("[a](https://example.org/x)", "[a](#here)", "[a](nowhere.md)", "f[i](x)"):
        assert links(same, "docs") == same
