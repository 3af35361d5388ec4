"""The topology gallery: how each topology is drawn, and the text of docs/gallery.md.

    python docs/images/gallery.py    # writes the page anew; draw.py draws its pictures

A topology that is not named here is drawn with 8 ranks on a circle, and only its docstring speaks.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bluefog_pg.topology import Analysis, SizeError, analyze, get, names
from bluefog_pg.topology.analysis.pictures import on_circle
from bluefog_pg.topology.analysis.units import factor_text

PAGE = Path(__file__).parents[1] / "gallery.md"
SIZES = (8, 16, 64)
Place = Mapping[int, tuple[float, float]]


def in_rows(rows: int, columns: int) -> Place:
    """Ranks in row-major order."""
    step = 2 / (max(rows, columns) - 1)
    return {
        i: ((i % columns - (columns - 1) / 2) * step, ((rows - 1) / 2 - i // columns) * step)
        for i in range(rows * columns)
    }


def as_tree(n: int) -> Place:
    """The children of rank i are 2 i + 1 and 2 i + 2."""
    levels = n.bit_length()
    place = {}
    for i in range(n):
        level = (i + 1).bit_length() - 1
        across = (i + 1 - 2**level + 0.5) / 2**level
        place[i] = (2.3 * across - 1.15, 1 - 2 * level / (levels - 1))
    return place


def around_rank_0(n: int) -> Place:
    return {0: (0.0, 0.0)} | {i: on_circle(i - 1, n - 1) for i in range(1, n)}


def as_torus(side: int) -> Place:
    """Rows and columns are bent, so that the lines that close them lie beside them."""
    bend = {k: 0.4 * (2 * k / (side - 1) - 1) ** 2 for k in range(side)}
    return {
        i: (2 * (c + bend[r]) / (side - 0.6) - 1, 1 - 2 * (r + bend[c]) / (side - 0.6))
        for i in range(side * side)
        for r, c in [divmod(i, side)]
    }


def in_four_hosts(ranks: int) -> Place:
    """Each host's ranks on a small circle; hosts in a square, clockwise from the left upper one.

    Circles are turned a little, so that lines between hosts do not hide each other.
    """
    corners = ((-1, 1), (1, 1), (1, -1), (-1, -1))
    place = {}
    for i in range(4 * ranks):
        (x, y), (dx, dy) = corners[i // ranks], on_circle(i % ranks + 0.05 * ranks, ranks)
        place[i] = (0.66 * x + 0.36 * dx, 0.66 * y + 0.36 * dy)
    return place


@dataclass(frozen=True)
class Entry:
    """How a topology is drawn, and what is said of it beside its docstring."""

    n: int = 8
    arguments: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    use: str = ""
    source: str = ""


EXPONENTIAL = "Ying et al., arXiv:2110.13363"
FINITE_TIME = "Nguyen et al., arXiv:2311.01317"
EQUI = "Song et al., arXiv:2210.07881"
BLUEFOG = "BlueFog, arXiv:2111.04287"
METROPOLIS = "Metropolis-Hastings weights: Xiao and Boyd, Systems & Control Letters 53, 2004"

ENTRIES: dict[str, Entry] = {
    "balanced_tree": Entry(
        7,
        place=as_tree(7),
        use="`relay_sgd`, which needs a tree. A poor graph for plain averaging.",
        source="Vogels et al. (RelaySGD), arXiv:2110.04175",
    ),
    "base_graph": Entry(
        6,
        use="The exact average with one message per step, for any number of ranks; symmetric. A "
        "safe choice where that is not a power of two.",
        source="Takezawa et al., arXiv:2305.11420",
    ),
    "ceca": Entry(
        6,
        use="The fewest steps that one message per step allows, for any number of ranks; needs "
        '`algorithm="ceca"`, which keeps a second copy of the model.',
        source="Ding et al., arXiv:2306.00256",
    ),
    "de_bruijn": Entry(
        use="The exact average from one graph that never changes; gradient tracking. Not for "
        "methods that need each rank to keep a share of its own value.",
        source=FINITE_TIME,
    ),
    "dissemination": Entry(
        use="`gossipgrad`: partners change often, so that data mixes evenly.",
        source="Daily et al. (GossipGraD), arXiv:1803.05880",
    ),
    "equi_dyn": Entry(
        use="Very many ranks, or a number that changes: its rate does not depend on it.",
        source=EQUI,
    ),
    "equi_static": Entry(
        16, use="Many ranks and a graph that must not change, at a degree of log n.", source=EQUI
    ),
    "erdos_renyi": Entry(
        16,
        use="Comparisons with the literature, and irregular graphs for tests.",
        source="Erdos and Renyi, 1959. " + METROPOLIS,
    ),
    "exponential": Entry(
        use="A good static graph for any number of ranks, where a step may cost log n messages; "
        "the default of BlueFog, and of the window algorithms.",
        source=EXPONENTIAL,
    ),
    "fully_connected": Entry(
        use="The exact average in every step: what others are compared with. Few ranks only.",
    ),
    "hierarchical_exponential": Entry(
        8,
        {"ranks_per_host": 2},
        in_four_hosts(2),
        use="Hosts of several ranks with fast memory inside and a slow wire between. Executed edge "
        "by edge it is wasteful; `bluefog_pg.torch.hierarchical_neighbor_allreduce` is the "
        "operation for it.",
        source=BLUEFOG,
    ),
    "hyper_cuboid": Entry(
        12,
        use="The exact average where n has small prime factors only.",
        source=FINITE_TIME,
    ),
    "hypercube": Entry(use="`d2`, `exact_diffusion`, `extra`: static and symmetric."),
    "inner_outer_exponential": Entry(
        16,
        {"ranks_per_host": 4},
        in_four_hosts(4),
        use="One message per rank and step, of which one per host crosses the wire.",
        source=BLUEFOG,
    ),
    "inner_outer_ring": Entry(
        12,
        {"ranks_per_host": 3},
        in_four_hosts(3),
        use="The same for few hosts in a ring.",
        source=BLUEFOG,
    ),
    "mesh2d": Entry(
        12,
        place=in_rows(3, 4),
        use="Ranks that are wired as a grid; comparisons with the literature.",
        source=METROPOLIS,
    ),
    "one_peer_exponential": Entry(
        use="The default. One message per rank and step; exact where n is a power of two.",
        source=EXPONENTIAL,
    ),
    "one_peer_hypercube": Entry(
        use="Powers of two, in pairs: symmetric in each step, and with 2^k ranks on a host the "
        "first k steps of a period stay on it.",
    ),
    "random_matching": Entry(
        use="`noloco`; gossip of pairs, as theory likes it.",
        source="Boyd et al., IEEE Transactions on Information Theory 52, 2006",
    ),
    "random_regular": Entry(
        16,
        use="A static, symmetric graph of constant degree whose rate does not grow with n.",
        source="Friedman, arXiv:cs/0405020",
    ),
    "ring": Entry(
        use="The fewest neighbours of all static graphs, and the slowest mixing: up to some ten "
        "ranks, `d2` and the like, and to see what a bad graph does.",
        source="Lian et al. (D-PSGD), arXiv:1705.09056",
    ),
    "star": Entry(
        9,
        place=around_rank_0(9),
        use="What a server in the middle does, to compare with; its center gets n - 1 messages.",
        source=METROPOLIS,
    ),
    "symmetric_exponential": Entry(
        16,
        use="`d2`, `exact_diffusion`, `extra` and `ad_psgd` with fast mixing and log n neighbours.",
        source=BLUEFOG,
    ),
    "torus2d": Entry(
        16,
        place=as_torus(4),
        use="`d2` and the like at four neighbours; ranks that are wired as one.",
    ),
}

HEAD = """\
# Topology gallery

What each topology looks like, what it costs, and how fast it mixes. Lines without arrow heads go
both ways; of schedules the first steps are drawn. Not in here: `auto`, which
[takes one of them](topologies.md).

- **degree**: the most messages that a rank receives or sends in a step.
- **rate**: the factor by which a disagreement shrinks per step, at worst; 0 where it vanishes.
- **exact after**: steps that give the exact average.

All three are explained, and given for more numbers of ranks, in
[the tables](topologies.md). `bluefog-pg topo show ring -n 8 --plot ring.png` draws one
larger, with its mixing matrix and the decay of a disagreement.

<!-- This page is written by `python docs/images/gallery.py`. -->
"""


def gallery_names() -> list[str]:
    """All registered topologies but `auto`, which is one of the others."""
    return [name for name in names() if name != "auto"]


def picture_name(name: str) -> str:
    return f"topology_{name}.svg"


def page() -> str:
    """Returns the text of docs/gallery.md."""
    return "\n".join([HEAD, *map(_section, gallery_names())])


def _section(name: str) -> str:
    entry, constructor = ENTRIES.get(name, Entry()), get(name)
    summary, *_ = inspect.getdoc(constructor).split("\n\n")
    given = "".join(f", {key}={value}" for key, value in entry.arguments.items())
    lines = [f"## `{name}`", "", f"![{name}({entry.n}{given})](images/{picture_name(name)})", ""]
    lines += [f"`bluefog_pg.{name}({entry.n}{given})`. {_in_one_line(summary)}", ""]
    if entry.use:
        lines += [f"*Good for:* {entry.use}", ""]
    if entry.source:
        lines += [f"*Source:* {_linked(entry.source)}", ""]
    return "\n".join([*lines, *_table(constructor), ""])


def _table(constructor: Callable[..., Any]) -> list[str]:
    columns = [_analysis(constructor, n) for n in SIZES]
    rows: dict[str, Callable[[Analysis], str]] = {
        "degree": lambda a: str(max(a.in_degree, a.out_degree)),
        "rate": lambda a: factor_text(a.rate),
        "exact after": lambda a: "never" if a.exact_after is None else str(a.exact_after),
    }
    if all(a is None or a.exact_after is None for a in columns):
        del rows["exact after"]
    return [
        f"| n | {' | '.join(map(str, SIZES))} |",
        "|---" * (1 + len(SIZES)) + "|",
        *(
            f"| {title} | {' | '.join('-' if a is None else text(a) for a in columns)} |"
            for title, text in rows.items()
        ),
    ]


def _analysis(constructor: Callable[..., Any], n: int) -> Analysis | None:
    try:
        return analyze(constructor(n))
    except SizeError:
        return None


def _in_one_line(text: str) -> str:
    text = " ".join(text.split())
    return text.replace("_", r"\_").replace("^", r"\^")


def _linked(source: str) -> str:
    words = source.split(" ")
    for at, word in enumerate(words):
        if word.startswith("arXiv:"):
            words[at] = f"[{word}](https://arxiv.org/abs/{word.removeprefix('arXiv:')})"
    return " ".join(words)


if __name__ == "__main__":
    PAGE.write_text(page())
