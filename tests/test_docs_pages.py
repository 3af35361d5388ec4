"""Pages of the docs: pictures are there, names exist, and what is generated is up to date."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
from torch.nn.parallel import DistributedDataParallel

import bluefog_pg
from bluefog_pg import DecentralizedDataParallel, algorithms, topology

DOCS = Path(__file__).parents[1] / "docs"
TESTS = Path(__file__).parent
IMAGES = DOCS / "images"
PAGES = [DOCS / f"{name}.md" for name in ("operations", "gallery", "faults", "migration")]


@pytest.fixture
def drawing(monkeypatch):
    """The modules draw and gallery of docs/images."""
    pytest.importorskip("matplotlib", reason="matplotlib, of bluefog_pg[plot], is missing")
    monkeypatch.syspath_prepend(str(IMAGES))
    yield importlib.import_module("draw"), importlib.import_module("gallery")
    for name in ("draw", "gallery"):
        sys.modules.pop(name)


def spans(text):
    """Code in backticks, without the blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def exists(path):
    """Whether bluefog_pg.<path> does; modules on the way are imported."""
    here, so_far = bluefog_pg, "bluefog_pg"
    for name in path.split("."):
        so_far = f"{so_far}.{name}"
        if not hasattr(here, name):
            try:
                importlib.import_module(so_far)
            except ImportError:
                return False
        here = getattr(here, name)
    return True


def test_what_exists_is_told_from_what_does_not():
    assert exists("torch.pair_gossip") and exists("ops.bytes_sent") and exists("Schedule")
    assert not exists("torch.nothing") and not exists("nothing.ring")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page):
    text = " ".join(spans(page.read_text()))
    names = re.findall(r"(?<![\w./])(?:bf|bluefog_pg)\.([A-Za-z_][\w.]*\w)", text)
    assert len(names) > 5 or page.name == "faults.md"
    assert not [name for name in names if not exists(name)]
    methods = set(re.findall(r"(?<![\w.])model\.(\w+)", text)) - {"module"}
    assert not [name for name in methods if not hasattr(DecentralizedDataParallel, name)]
    assert set(re.findall(r'algorithm="(\w+)"', text)) <= set(algorithms.names())
    of_decent_dp = {"complete"}
    assert set(re.findall(r'topology="(\w+)"', text)) - of_decent_dp <= set(topology.names())


def test_tests_that_are_referred_to_exist():
    text = (DOCS / "faults.md").read_text()
    referred = set(re.findall(r"[\w/]*test\w*\.(?:py|cc)", text))
    assert len(referred) > 8
    assert not [name for name in referred if not (TESTS / name).exists()]


def test_every_argument_and_method_of_ddp_is_in_the_table():
    text = (DOCS / "migration.md").read_text()
    section = text[text.index("## From Dist") : text.index("## From Horovod")]
    said = set(re.findall(r"\w+", " ".join(spans(section))))
    arguments = set(inspect.signature(DistributedDataParallel).parameters)
    methods = {name for name in vars(DistributedDataParallel) if not name.startswith("_")}
    internal = {"forward", "gather", "scatter", "to_kwargs", "train"}
    of_join = {"join_hook", "join_device", "join_process_group"}
    assert (arguments | methods) - internal - of_join - said == set()


def test_pages_show_exactly_the_pictures_that_are_drawn(drawing, tmp_path):
    draw, _ = drawing
    shown = [
        name
        for page in DOCS.glob("*.md")
        for name in re.findall(r"!\[[^\]]+\]\(images/([^)]+)\)", page.read_text())
    ]
    there = {path.name for path in IMAGES.iterdir() if path.suffix in (".svg", ".png")}
    assert sorted(shown) == sorted(draw.pictures()) == sorted(there)
    assert max((IMAGES / name).stat().st_size for name in there) < 100_000
    for beginning in ("neighbor_allg", "topology_base", "topology_ring"):
        draw.draw(tmp_path, beginning)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {name for name in there if name in drawn} and len(drawn) == 3
    assert all(b"<svg" in path.read_bytes() for path in tmp_path.iterdir())


def test_the_gallery_is_what_its_script_writes(drawing):
    _, gallery = drawing
    assert gallery.PAGE.read_text() == gallery.page(), "run python docs/images/gallery.py"
    assert gallery.ENTRIES.keys() <= set(gallery.gallery_names())
