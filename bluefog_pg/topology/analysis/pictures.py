"""Pictures of topologies: for Graphviz as text, and with matplotlib as a file."""

import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..dynamic.ceca import CecaSchedule
from ..mixing import sparse_mixing_matrix
from ..schedule import Schedule, rounds
from ..weights import recv_weights
from .analyze import analyze
from .units import factor_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = npt.NDArray[np.float64]
Place = tuple[float, float]

MOST_ROUNDS = 8
"""How many rounds of a schedule are drawn."""

MOST_STEPS = 60
"""How far the decay of the consensus error is followed."""

_ROUNDING = 1e-15
_FLOOR = 1e-17
"""Stands for 0 on the logarithmic axis."""


def dot(topology: nx.DiGraph | Schedule) -> str:
    """Returns the topology in Graphviz's language; a schedule's rounds are clusters side by side.

    Edges carry their weights; self-loops are left out, and the self weight is in the node.
    """
    graphs = list(islice(rounds(topology), MOST_ROUNDS))
    lines = ["digraph topology {", "  layout=circo;" if len(graphs) == 1 else "  rankdir=LR;"]
    for step, graph in enumerate(graphs):
        prefix = f"r{step}_" if len(graphs) > 1 else ""
        body = _dot_lines(graph, prefix)
        if prefix:
            body = [f"subgraph cluster_{step} {{", f'  label="round {step}";', *_indent(body), "}"]
        lines += _indent(body)
    return "\n".join([*lines, "}"])


def plot(topology: nx.DiGraph | Schedule, path: str, title: str = "") -> None:
    """Draws the rounds, the mixing matrix and the decay of the consensus error into a file.

    Args:
        topology: what to draw; of a schedule the first 8 rounds.
        path: the file; its ending (.png, .pdf, .svg) says which kind.
        title: goes above.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib does not know this kind of file, or the topology is not valid.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'bluefog_pg[plot]'") from error

    graphs = list(islice(rounds(topology), MOST_ROUNDS))
    if len(graphs) == 1:
        figure = Figure(figsize=(16, 5), layout="constrained")
        axes = list(figure.subplots(1, 3))
    else:
        columns = min(len(graphs), 4)
        rows = math.ceil(len(graphs) / columns)
        figure = Figure(figsize=(max(4 * columns, 11), 4 * rows + 5), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(4 * rows, 5))
        axes = list(top.subplots(rows, columns, squeeze=False).flat) + list(
            bottom.subplots(1, 2, width_ratios=(2, 3))
        )
        for unused in axes[len(graphs) : -2]:
            unused.set_axis_off()
    for step, (graph, ax) in enumerate(zip(graphs, axes, strict=False)):
        draw_graph(ax, graph)
        ax.set_title(f"round {step}" if len(graphs) > 1 else "who sends to whom")
    _draw_matrix(axes[-2], topology)
    _draw_decay(axes[-1], topology)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)
    figure.suptitle(_heading(title, topology), fontsize="x-large")
    figure.savefig(path, dpi=100)


def _heading(title: str, topology: nx.DiGraph | Schedule) -> str:
    if not isinstance(topology, Schedule) or topology.period == 1:
        return title
    if topology.period is None:
        return f"{title}, never repeats"
    return f"{title}, {topology.period} rounds"


def draw_graph(ax: "Axes", graph: nx.DiGraph, place: Mapping[int, Place] | None = None) -> None:
    """Draws who sends to whom; arrows only where nothing goes the other way.

    Args:
        place: where ranks are, x and y from -1 to 1. Default: on a circle, clockwise from the top.
    """
    n = len(graph)
    # Points; so small that the line between a rank's two neighbours on the circle passes by it.
    radius = min(11.0, max(85 * (1 - math.cos(2 * math.pi / n)), 1.8)) if n > 1 else 11.0
    if place is None:
        place = {i: on_circle(i, n) for i in range(n)}
    else:
        radius = 11.0
    few = radius > 9  # room for a number inside
    size = math.pi * radius**2
    pairs = [(j, i) for j, i in graph.edges if j != i]
    mutual = [(j, i) for j, i in pairs if j < i and graph.has_edge(i, j)]
    one_way = [(j, i) for j, i in pairs if not graph.has_edge(i, j)]
    style: dict[str, Any] = {"ax": ax, "width": 1.4 if n <= 20 else 0.6, "edge_color": "#4a6f9c"}
    nx.draw_networkx_edges(graph, place, edgelist=mutual, arrows=False, **style)
    nx.draw_networkx_edges(
        graph, place, edgelist=one_way, node_size=size, arrowsize=12 if n <= 20 else 6, **style
    )
    nx.draw_networkx_nodes(graph, place, node_size=size, node_color="#f3c677", ax=ax)
    every = math.ceil(n / 32)
    for i in range(0, n, every):
        x, y = place[i]
        out = 1 if few else 1.12
        ax.text(out * x, out * y, str(i), ha="center", va="center", fontsize=10 if few else 8)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    ax.set_axis_off()


def on_circle(i: float, n: int) -> Place:
    """Returns the i-th of n places on the circle of radius 1, clockwise from the top."""
    return math.sin(2 * math.pi * i / n), math.cos(2 * math.pi * i / n)


def _draw_matrix(ax: "Axes", topology: nx.DiGraph | Schedule) -> None:
    """The mixing matrix of a period, or of the rounds that are drawn of one that never repeats."""
    period = topology.period if isinstance(topology, Schedule) else 1
    count = period or MOST_ROUNDS
    w = _mixing_of(topology, count)
    image = ax.imshow(w, cmap="Blues", vmin=min(w.min(), 0))
    if np.allclose(w, 1 / len(w), rtol=0, atol=1e-12):
        says = f"all 1/{len(w)}: the exact average"
        ax.text(0.5, 0.5, says, color="white", ha="center", transform=ax.transAxes)
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.85)
    if isinstance(topology, CecaSchedule):
        title = f"weights of the first x in x after {count} rounds"
    else:
        title = "mixing matrix W" if count == 1 else f"mixing matrix of {count} rounds together"
    ticks = range(0, len(w), math.ceil(len(w) / 8))
    ax.set(xlabel="sender", ylabel="receiver", title=title, xticks=ticks, yticks=ticks)


def _mixing_of(topology: nx.DiGraph | Schedule, count: int) -> Values:
    """What `count` rounds do to the values; of a `CecaSchedule`, to x where z = x at the start."""
    x = z = np.eye(topology.size if isinstance(topology, Schedule) else len(topology))
    for step in range(count):
        x, z = _mix(topology, step, x, z)
    return x


def consensus_errors(topology: nx.DiGraph | Schedule, steps: int) -> Values:
    """Returns ||x_t - mean|| / ||x_0 - mean|| for t = 0..steps, from random values x_0.

    Of a `CecaSchedule`, x is followed, with z = x at the start.
    """
    from .spectral import random_values

    n = topology.size if isinstance(topology, Schedule) else len(topology)
    x = z = random_values(n)
    mean = x.mean(axis=0)
    errors = [np.linalg.norm(x - mean)]
    for step in range(steps):
        x, z = _mix(topology, step, x, z)
        errors.append(np.linalg.norm(x - mean))
    return np.array(errors) / (errors[0] or 1)


def _mix(topology: nx.DiGraph | Schedule, step: int, x: Values, z: Values) -> tuple[Values, Values]:
    """Returns x after one round, and z, which only a `CecaSchedule` has."""
    if isinstance(topology, CecaSchedule):
        return topology.update(step).apply(x, z)
    graph = topology(step) if isinstance(topology, Schedule) else topology
    return sparse_mixing_matrix(graph) @ x, z


def _draw_decay(ax: "Axes", topology: nx.DiGraph | Schedule) -> None:
    analysis = analyze(topology)
    steps = MOST_STEPS if analysis.exact_after is None else max(2 * analysis.exact_after, 6)
    t = np.arange(steps + 1)
    errors = consensus_errors(topology, steps)
    ax.semilogy(t, np.maximum(errors, _FLOOR), "o-", ms=3, label="random values")
    if analysis.exact_after is not None:
        count = analysis.exact_after
        label = f"theory: exact after {count} round{'' if count == 1 else 's'}"
        ax.axvline(count, color="C1", ls="--", label=label)
    elif analysis.rate > 0:
        says = "theory" if analysis.period else f"mean of {analysis.rounds} rounds"
        label = f"{says}: {factor_text(analysis.rate)} per round"
        ax.semilogy(t, analysis.rate**t, "--", label=label)
    lowest = errors.min() / 30
    if lowest < _ROUNDING:
        ax.axhspan(_FLOOR / 10, _ROUNDING, color="0.9", label="rounding")
    ax.set(
        xlabel="round t",
        ylabel=r"$\|x_t - \bar x\| \,/\, \|x_0 - \bar x\|$",
        title="decay of the consensus error",
        ylim=(max(lowest, _FLOOR / 3), 3),
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(loc="best")


def _dot_lines(graph: nx.DiGraph, prefix: str) -> list[str]:
    lines = []
    for rank in range(len(graph)):
        self_weight, sources = recv_weights(graph, rank)
        lines.append(f'{prefix}{rank} [label="{rank}", tooltip="self weight {self_weight:.4g}"];')
        lines += [
            f'{prefix}{src} -> {prefix}{rank} [label="{weight:.4g}"];'
            for src, weight in sources.items()
        ]
    return lines


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
