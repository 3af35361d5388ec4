"""What pages lead to outside of docs/ comes along to the site.

A link to a file of the repository becomes a link to a page that shows the file, also in what is
included from README.md. The tutorials, which are notebooks with outputs, become pages.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
NOTEBOOKS = ROOT / "examples/tutorials"
TUTORIALS = DOCS / "_tutorials"  # their copies
FILES = DOCS / "_files"  # pages that show a file
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def setup(app: Any) -> dict[str, Any]:
    for folder in (FILES, TUTORIALS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    copy_notebooks()
    show_files()
    app.connect("source-read", on_source_read)
    app.connect("include-read", on_include_read)
    return {"parallel_read_safe": True}


def on_source_read(app: Any, page: str, source: list[str]) -> None:
    if page.startswith(f"{TUTORIALS.name}/") and source[0].startswith("{"):
        source[0] = highlighted(link_to_pages(source[0], NOTEBOOKS))
    else:
        source[0] = link_to_pages(source[0], (DOCS / page).parent)


def on_include_read(app: Any, path: Path, page: str, source: list[str]) -> None:
    source[0] = link_to_pages(source[0], (DOCS / path).resolve().parent)


def highlighted(notebook: str) -> str:
    """Returns a notebook whose cells are shown as Python, also where the first line is %%px."""
    cells = json.loads(notebook)
    cells["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "python"}
    return json.dumps(cells)


def link_to_pages(text: str, folder: Path) -> str:
    """Returns the text of a file of `folder` with links that lead to pages of the site."""

    def follow(match: re.Match[str]) -> str:
        target = target_of(match[0], folder)
        return match[0] if target is None else page_of(target)

    return LINK.sub(follow, text)


def target_of(link: str, folder: Path) -> Path | None:
    """Returns the file or folder that a link leads to, from ROOT on; None where there is none."""
    path = (folder / link).resolve()
    return path.relative_to(ROOT) if path.exists() and path.is_relative_to(ROOT) else None


def page_of(target: Path) -> str:
    """Returns the page of the site for what a link leads to."""
    if target in (Path("README.md"), Path("docs")):
        return "/index.md"
    if target.parts[0] == "docs":
        return f"/{target.relative_to('docs')}"
    if target.suffix == ".ipynb":
        return f"/{TUTORIALS.name}/{target.name}"
    return f"/{FILES.name}/{target}.md"


def copy_notebooks() -> None:
    notebooks = list(NOTEBOOKS.glob("*.ipynb"))
    for notebook in notebooks:
        shutil.copy2(notebook, TUTORIALS)
    if not notebooks:
        (TUTORIALS / "none.md").write_text("# There are none in this checkout\n")


def show_files() -> None:
    """Writes the pages for files of the repository that other pages link to."""
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), *NOTEBOOKS.glob("*.ipynb")]
    links = {(link, page.parent) for page in pages for link in LINK.findall(page.read_text())}
    for target in {target_of(*link) for link in links} - {None}:
        if page_of(target).startswith(f"/{FILES.name}/"):
            page = FILES / f"{target}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(f"---\norphan: true\n---\n# {target}\n\n{content_of(target)}\n")


def content_of(target: Path) -> str:
    if (ROOT / target).is_dir():
        return "\n".join(f"- {path.name}" for path in sorted((ROOT / target).iterdir()))
    return f"```{{literalinclude}} /../{target}\n:language: {language_of(target)}\n```"


def language_of(target: Path) -> str:
    try:
        return "c++" if target.suffix == ".h" else get_lexer_for_filename(target.name).aliases[0]
    except ClassNotFound:
        return "text"
