"""Sphinx makes the site of these pages: make docs."""

import sys
from pathlib import Path

import bluefog_pg

sys.path.append(str(Path(__file__).parent / "_extensions"))

project = "bluefog"
copyright = "the bluefog authors, Apache-2.0"
version = release = bluefog_pg.__version__

extensions = [
    "bring_along",
    "plain_docstrings",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]

html_theme = "furo"
html_title = f"bluefog {release}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3  # as where the repository is looked at
nb_execution_mode = "off"  # notebooks are committed with outputs; make test-docs executes them
highlight_language = "text"  # of indented blocks in docstrings: equations, tables
smartquotes_action = "D"  # dashes only: x' is the next x

autoclass_content = "both"  # the docstring of the class and that of __init__
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88

default_role = "py:obj"  # `name` in a docstring
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # default_role: whatever has a name
    ("py:.*", r"(collections|contextlib|matplotlib|networkx|numpy|scipy|torch|typing)\..*"),
    ("py:.*", "csr_array"),
    ("py:class", r"bluefog_pg\..*\.(F|M|Messages|Network|T)"),  # in signatures only
]
