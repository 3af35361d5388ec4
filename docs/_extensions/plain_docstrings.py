"""Makes reStructuredText of docstrings, which are plain text but for `name`, ``code`` and sections.

What is indented after an empty line is shown as it is: programs, tables, equations. So is the
equation of an algorithm, the second paragraph of its docstring.
"""

import ast
import re
from pathlib import Path
from typing import Any

import bluefog_pg

MARKUP = re.compile(r"(``.*?``|`[^`]*`)|([*|\\]|_(?!\w))")
ARRAY = re.compile(r"(~?numpy\.ndarray)\[tuple\[~?typing\.Any, \.\.\.\], [^\[\]]*\[[^\[\]]*\]\]")
EQUATIONS = ("bluefog_pg.algorithms.", "bluefog_pg.simulate.methods.")


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", on_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", on_signature)
    return {"parallel_read_safe": True}


def on_docstring(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    if name == "bluefog_pg.BluefogOptions":  # C++
        lines[:] = stub_docstring("BluefogOptions").splitlines()
    if name.startswith(EQUATIONS):
        indent_equation(lines)
    lines[:] = restructured(lines)
    if what in ("attribute", "data", "property") and lines:
        lines[0] = f": {lines[0]}"  # napoleon takes what is before a colon for a type


def restructured(lines: list[str]) -> list[str]:
    text: list[str] = []
    as_it_is = False
    for line in lines:
        indented = line.startswith("  ")
        if indented and not as_it_is and text and not text[-1]:
            text += ["::", ""]
            as_it_is = True
        as_it_is = as_it_is and (indented or not line)
        text.append(line if as_it_is else MARKUP.sub(lambda m: m[1] or "\\" + m[2], line))
    return text


def indent_equation(lines: list[str]) -> None:
    for i in range(2, len(lines)):
        if not lines[i] or (i == 2 and " = " not in lines[i]):
            return
        lines[i] = f"    {lines[i]}"


def on_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: str, result: str
) -> tuple[str, str]:
    return tuple(text and ARRAY.sub(r"\1", text) for text in (arguments, result))


def stub_docstring(name: str) -> str:
    """Returns the docstring that a class of the C++ extension has in its stub."""
    stub = ast.parse(Path(bluefog_pg.__file__).with_name("_C.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    return ast.get_docstring(classes[name]) or ""
