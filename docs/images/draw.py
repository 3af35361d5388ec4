"""Draws the pictures of the docs, into this folder.

    python docs/images/draw.py         # all of them
    python docs/images/draw.py window  # those whose names begin so

The same matplotlib draws the same bytes. Each picture is a function here that returns a Figure,
and has its name; those of the topology gallery are in gallery.py.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from gallery import ENTRIES, Entry, gallery_names, picture_name
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from bluefog_pg.topology import Schedule, get, one_peer_exponential, ring
from bluefog_pg.topology.analysis.pictures import draw_graph, on_circle

FOLDER = Path(__file__).parent
RANK, LINE, FAINT, DARK, LATE = "#f3c677", "#4a6f9c", "#dfe6ee", "#2d4663", "#c8553d"
SHADES = ("#f3c677", "#8fb8de", "#a8c69f", "#d6a2c8")
"""One for what comes from each of the first ranks."""

Point = tuple[float, float]


# ---- What pictures are made of


def canvas(width: float, height: float, right: float, top: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, whose coordinates go from 0 to `right` and `top`."""
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    _frame(ax, right, top)
    return figure, ax


def _frame(ax: Axes, right: float, top: float) -> None:
    ax.set(xlim=(0, right), ylim=(0, top), aspect="equal")
    ax.set_axis_off()


def box(ax: Axes, at: Point, text: str, size: Point = (0.8, 0.5), color: str = RANK) -> None:
    """A box with its centre at a point."""
    (x, y), (w, h) = at, size
    style = "round,pad=0,rounding_size=0.07"
    patch = FancyBboxPatch((x - w / 2, y - h / 2), w, h, style, fc=color, ec=DARK, lw=0.8)
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(ax: Axes, start: Point, end: Point, label: str = "", **style: Any) -> None:
    """An arrow with a label next to its middle; `off`: how far from it, `bend`: how round."""
    dx, dy = style.pop("off", (0, 0.16))
    bend, color = style.pop("bend", 0), style.pop("color", LINE)
    given = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.3, "color": color} | style
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **given))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    ax.text(x + dx, y + dy, label, ha="center", va="center", fontsize=9, color=DARK)


def say(ax: Axes, at: Point, text: str, **style: Any) -> None:
    ax.text(*at, text, **({"ha": "center", "va": "center", "fontsize": 9, "color": DARK} | style))


# ---- docs/operations.md


def neighbor_allreduce() -> Figure:
    """A ring of five, and what one of its ranks makes of what it gets."""
    figure, ax = canvas(7.2, 2.9, 7.2, 2.9)
    places = {
        i: (1.55 + 1.1 * on_circle(i, 5)[0], 1.4 + 1.1 * on_circle(i, 5)[1]) for i in range(5)
    }
    for i in range(5):
        busy = i in (0, 1)
        color, width = (DARK, 1.8) if busy else ("#b6c4d4", 1.0)
        for start, end in ((i, (i + 1) % 5), ((i + 1) % 5, i)):
            inwards = end == 1
            arrow(
                ax,
                places[start],
                places[end],
                bend=0.18,
                shrinkA=11,
                shrinkB=11,
                color=color if inwards else "#b6c4d4",
                lw=width if inwards else 1.0,
            )
    for i, (x, y) in places.items():
        ax.plot(x, y, "o", ms=20, mfc=SHADES[i] if i < 3 else "white", mec=DARK, mew=0.8)
        say(ax, (x, y), f"{i}")
    for place, weight in ((places[0], "w₁₀ x₀"), (places[2], "w₁₂ x₂")):
        x, y = ((place[0] + places[1][0]) / 2, (place[1] + places[1][1]) / 2)
        say(ax, (x + 0.42, y + (0.18 if y > 1.4 else -0.1)), weight)
    for k, (name, color) in enumerate((("w₁₀ x₀", 0), ("w₁₁ x₁", 1), ("w₁₂ x₂", 2))):
        box(ax, (4.2, 2.25 - 0.65 * k), name, (0.95, 0.45), SHADES[color])
        arrow(ax, (4.7, 2.25 - 0.65 * k), (5.45, 1.6))
    box(ax, (6.2, 1.6), "y₁ = w₁₀ x₀\n+ w₁₁ x₁ + w₁₂ x₂", (1.45, 0.75), "white")
    say(
        ax,
        (5.3, 0.35),
        "rank 1 reads two neighbours and keeps its own;\nall ranks do the same at once",
    )
    return figure


def dynamic() -> Figure:
    """The one-peer exponential graph on eight ranks, step by step."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    schedule = one_peer_exponential(8)
    for step, ax in enumerate(figure.subplots(1, 3)):
        draw_graph(ax, schedule(step))
        mean = f"x: the mean of {2 ** (step + 1)}" if step < 2 else "x: the mean of all"
        ax.set_title(f"step {step}: send to rank + {2**step}\n{mean}", fontsize=9, color=DARK)
    return figure


def weights_of_a_call() -> Figure:
    """Both ends of an edge weigh."""
    figure, ax = canvas(7.2, 1.6, 7.2, 1.6)
    box(ax, (0.75, 0.9), "rank j\nx_j", (1.0, 0.7), SHADES[1])
    box(ax, (3.6, 0.9), "what is sent\ndst_weights[i] · x_j", (1.75, 0.7), "white")
    box(ax, (6.3, 0.9), "rank i adds\nsrc_weights[j] · that", (1.65, 0.7), SHADES[0])
    arrow(ax, (1.27, 0.9), (2.7, 0.9), "j weighs")
    arrow(ax, (4.5, 0.9), (5.45, 0.9), "i weighs")
    say(
        ax, (3.6, 0.2), "in y_i:  self_weight_i · x_i  +  src_weights_i[j] · dst_weights_j[i] · x_j"
    )
    return figure


def waiting() -> Figure:
    """Six ranks in a ring, one of them late once: who waits for it, and when."""
    n, work, exchange, late = 6, 1.0, 0.25, 1.2
    figure = Figure(figsize=(7.2, 2.9))
    ax = figure.add_axes((0.1, 0.17, 0.88, 0.68))
    graph, ready = ring(n), [0.0] * n
    for step in range(4):
        begin = [t + work + (late if (i, step) == (3, 1) else 0) for i, t in enumerate(ready)]
        met = [max(begin[j] for j in graph.predecessors(i)) for i in range(n)]
        for i in range(n):
            y = n - 1 - i
            ax.barh(y, begin[i] - ready[i], left=ready[i], color=FAINT, height=0.6)
            if (i, step) == (3, 1):
                ax.barh(y, late, left=begin[i] - late, color=LATE, height=0.6)
            if (waits := met[i] - begin[i]) > 0:
                ax.barh(y, waits, left=begin[i], color="white", ec=LATE, hatch="////", height=0.6)
            ax.barh(y, exchange, left=met[i], color=LINE, height=0.6)
        ready = [t + exchange for t in met]
    ax.set(yticks=range(n), yticklabels=[f"rank {n - 1 - y}" for y in range(n)], xticks=[])
    ax.set_xlabel("time", fontsize=9, color=DARK)
    ax.tick_params(labelsize=9, length=0)
    ax.spines[:].set_visible(False)
    handles = [
        ax.barh(-9, 0, color=FAINT, label="computes"),
        ax.barh(-9, 0, color=LINE, label="averages with its neighbours"),
        ax.barh(-9, 0, color="white", ec=LATE, hatch="////", label="waits"),
        ax.barh(-9, 0, color=LATE, label="is late, once"),
    ]
    ax.set_ylim(-0.6, n - 0.4)
    figure.legend(handles=handles, loc="upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def neighbor_allgather() -> Figure:
    """Four ranks in a ring: tensors of different lengths, and what each rank has afterwards."""
    figure, ax = canvas(7.2, 2.3, 7.2, 2.3)
    rows = (1, 2, 1, 3)
    say(ax, (1.9, 2.1), "each rank's tensor")
    say(ax, (5.3, 2.1), "the result: in-neighbours', by rank")
    for rank in range(4):
        y = 1.7 - 0.48 * rank
        say(ax, (0.5, y), f"rank {rank}")
        _blocks(ax, (1.2, y), [(rank, rows[rank])])
        arrow(ax, (3.1, y), (4.0, y))
        sources = sorted(((rank - 1) % 4, (rank + 1) % 4))
        _blocks(ax, (4.2, y), [(j, rows[j]) for j in sources])
    return figure


def _blocks(ax: Axes, start: Point, parts: list[tuple[int, int]]) -> None:
    x, y = start
    for rank, count in parts:
        for _ in range(count):
            box(ax, (x + 0.24, y), f"x{'₀₁₂₃'[rank]}", (0.44, 0.34), SHADES[rank])
            x += 0.48


def hierarchical() -> Figure:
    """Two machines of three ranks: in shares, so that each byte crosses the wire once."""
    figure, ax = canvas(7.2, 3.1, 7.2, 3.1)
    titles = (
        "1. inside: sum up,\na share for each",
        "2. between: each share\nwith its like",
        "3. inside: put the\nshares together",
    )
    for phase, title in enumerate(titles):
        left = 0.35 + 2.4 * phase
        say(ax, (left + 0.88, 2.82), title)
        spots = [[(left + 0.28 + 0.6 * r, y) for r in range(3)] for y in (1.9, 0.72)]
        for machine, row in enumerate(spots):
            frame = FancyBboxPatch(
                (left - 0.06, row[0][1] - 0.44), 1.88, 0.88, "round,pad=0,rounding_size=0.1",
                fc=FAINT, ec="none",
            )  # fmt: skip
            ax.add_patch(frame)
            if phase != 1:
                for a, b in ((0, 1), (1, 2)):
                    arrow(ax, row[a], row[b], arrowstyle="<|-|>", shrinkA=13, shrinkB=13)
            for r, spot in enumerate(row):
                shown = SHADES[r] if phase == 1 else "white"
                ax.plot(*spot, "o", ms=20, mfc=shown, mec=DARK, mew=0.8)
                say(ax, spot, str(3 * machine + r))
        if phase == 1:
            for up, down in zip(*spots, strict=True):
                arrow(ax, up, down, arrowstyle="<|-|>", shrinkA=13, shrinkB=13)
    say(ax, (0.15, 1.9), "machine 0", rotation=90)
    say(ax, (0.15, 0.72), "machine 1", rotation=90)
    return figure


def pair_gossip() -> Figure:
    """Two of four ranks average; the others know nothing of it."""
    figure, ax = canvas(7.2, 1.5, 7.2, 1.5)
    for rank in range(4):
        x = 0.9 + 1.8 * rank
        inside = rank in (1, 2)
        box(ax, (x, 0.95), f"rank {rank}", (0.9, 0.45), SHADES[rank] if inside else "white")
        text = "(x₁ + x₂) / 2" if inside else "goes on with its work"
        say(ax, (x, 0.35), text)
    arrow(ax, (3.17, 1.03), (4.03, 1.03), "x₁", off=(0, 0.13))
    arrow(ax, (4.03, 0.87), (3.17, 0.87), "x₂", off=(0, -0.13))
    return figure


def window() -> Figure:
    """What the operations of a window do to values and mailboxes."""
    figure, ax = canvas(7.2, 2.7, 7.2, 2.7)
    for left, name in ((0.2, "rank i"), (4.6, "rank j")):
        frame = FancyBboxPatch(
            (left, 0.15), 2.4, 2.1, "round,pad=0,rounding_size=0.12", fc=FAINT, ec="none"
        )
        ax.add_patch(frame)
        say(ax, (left + 1.2, 2.45), name)
    box(ax, (1.6, 1.85), "value x_i", (1.1, 0.5), SHADES[0])
    box(ax, (1.6, 0.55), "mailbox of j", (1.1, 0.5), "white")
    box(ax, (5.6, 1.85), "mailbox of i", (1.1, 0.5), "white")
    box(ax, (5.6, 0.55), "value x_j", (1.1, 0.5), SHADES[1])
    arrow(ax, (2.2, 1.85), (5.0, 1.85), "put: replaces it\naccumulate: adds to it", off=(0, 0.3))
    arrow(ax, (5.0, 0.55), (2.2, 0.55), "get", color=LATE)
    arrow(ax, (1.6, 0.83), (1.6, 1.57), "update", off=(-0.5, 0))
    arrow(ax, (5.6, 1.57), (5.6, 0.83), "update", off=(0.5, 0))
    say(ax, (3.6, 1.2), "all that rank i does here,\nbut j's update, it does alone")
    return figure


def collectives() -> Figure:
    """The standard collectives that have a way of their own through shared memory."""
    figure = Figure(figsize=(7.6, 2.1))
    sums = "Σ"
    cases: list[tuple[str, list[list[str]], list[list[str]]]] = [
        ("broadcast", [["a"], [""], [""]], [["a"], ["a"], ["a"]]),
        ("all_gather", [["a"], ["b"], ["c"]], [["a", "b", "c"]] * 3),
        ("reduce_scatter", [["a", "b", "c"]] * 3, [[f"{sums}a"], [f"{sums}b"], [f"{sums}c"]]),
        ("all_reduce", [["a", "b", "c"]] * 3, [[f"{sums}a", f"{sums}b", f"{sums}c"]] * 3),
    ]
    left = 0.05
    for title, before, after in cases:
        split = 0.1 + 0.3 * len(before[0])
        width = split + 0.42 + 0.3 * len(after[0]) + 0.15
        ax = figure.add_axes((left / 7.6, 0, width / 7.6, 1))
        _frame(ax, width, 2.1)
        say(ax, (width / 2, 1.85), title)
        for rank in range(3):
            y = 1.35 - 0.5 * rank
            _cells(ax, (0.1, y), before[rank])
            arrow(ax, (split + 0.06, y), (split + 0.36, y))
            _cells(ax, (split + 0.42, y), after[rank])
        left += width
    return figure


def _cells(ax: Axes, start: Point, texts: list[str]) -> None:
    x, y = start
    for k, text in enumerate(texts):
        shade = "white" if not text else SHADES["abc".index(text[-1])]
        box(ax, (x + 0.15 + 0.3 * k, y), text, (0.29, 0.34), shade)


# ---- docs/gallery.md


def topology(entry: Entry, name: str) -> Figure:
    """The graph, or the first rounds of a schedule, four at most."""
    drawn = get(name)(entry.n, **entry.arguments)
    is_schedule = isinstance(drawn, Schedule)
    count = min(drawn.period or 4, 4) if is_schedule else 1
    figure = Figure(figsize=(2.2 * count, 2.3 if count > 1 else 2.2), layout="constrained")
    for step, ax in enumerate(figure.subplots(1, count, squeeze=False).flat):
        draw_graph(ax, drawn(step) if is_schedule else drawn, entry.place)
        if count > 1:
            more = drawn.period is None or drawn.period > count
            ax.set_title(f"step {step}" + ", ..." * (more and step == count - 1), fontsize=9)
    return figure


# ---- All of them

OPERATIONS: tuple[Callable[[], Figure], ...] = (
    *(neighbor_allreduce, dynamic, weights_of_a_call, waiting, neighbor_allgather),
    *(hierarchical, pair_gossip, window, collectives),
)


def pictures() -> dict[str, Callable[[], Figure]]:
    """{file name: what draws it}"""
    drawn: dict[str, Callable[[], Figure]] = {f"{make.__name__}.svg": make for make in OPERATIONS}
    for name in gallery_names():
        entry = ENTRIES.get(name, Entry())
        drawn[picture_name(name)] = lambda entry=entry, name=name: topology(entry, name)
    return drawn


def draw(folder: Path, beginning: str = "") -> None:
    """Draws all pictures whose names begin so."""
    with mpl.rc_context({"svg.hashsalt": "bluefog", "font.family": "DejaVu Sans"}):
        for name, make in pictures().items():
            if name.startswith(beginning):
                make().savefig(folder / name, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw(FOLDER, *sys.argv[1:])
