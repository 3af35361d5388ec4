"""Draws a computed figure."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bluefog_pg.simulate.figures.figure import Figure, Values
from bluefog_pg.simulate.rounds import Array

_COLORS = (
    "#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3",
    "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd",
)  # fmt: skip
_DASHES = ("-", (0, (5, 1.5)), (0, (4, 1, 1, 1)), (0, (1, 1)))  # equal lines show through others
_POINTS = 500
"""Per line; more are a blur where a schedule makes the error swing from round to round."""


def check_path(path: str) -> None:
    """Finds out, before minutes of computing, whether a figure can be drawn to `path`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: its ending is no picture format.
        FileNotFoundError: its folder does not exist.
    """
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'bluefog_pg[plot]'") from error
    ending, known = Path(path).suffix[1:], Canvas().canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(f"{path!r} must end in one of .{', .'.join(sorted(known))}")
    if not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"the folder of {path!r} does not exist")


def draw(figure: Figure, values: Values, path: str) -> None:
    """Writes the figure to `path`, whose ending gives the format (.png, .pdf, .svg).

    A line is the mean over the runs, the band around it reaches from the least to the largest, and
    rings are references.

    Raises:
        ImportError, ValueError, FileNotFoundError: see `check_path`.
    """
    check_path(path)
    from matplotlib.figure import Figure as Canvas

    panels = list(dict.fromkeys(curve.panel for curve in figure.curves))
    one = len(panels) == 1
    size = (7.6, 4.6) if one else (4.3 * len(panels), 4.6 if figure.same_lines else 6)
    canvas = Canvas(figsize=size, layout="constrained", dpi=150)
    canvas.get_layout_engine().set(w_pad=0.1)
    axes = canvas.subplots(1, len(panels), squeeze=False, sharey=figure.same_lines)[0]
    for panel, ax in zip(panels, axes, strict=True):
        legend = _draw_curves(ax, figure, values, panel)
        ax.set(yscale="log", xlabel="iteration", title=panel, xlim=(0, figure.steps))
        ax.grid(True, alpha=0.3)
        if not figure.same_lines:  # outside of the axes, where no line can run under it
            corner = (1.01, 1) if one else (0, -0.16)
            place = {"loc": "upper left", "bbox_to_anchor": corner, "borderaxespad": 0}
            ax.legend(handles=legend, frameon=False, **place)
    if figure.same_lines:
        place = {"loc": "outside lower center", "ncols": len(legend)}
        canvas.legend(handles=legend, frameon=False, **place)
    axes[0].set_ylabel(figure.ylabel)
    canvas.suptitle(figure.title)
    canvas.savefig(path)


def _draw_curves(ax: Any, figure: Figure, values: Values, panel: str) -> list[Any]:
    """Returns what the legend shows."""
    from matplotlib.lines import Line2D

    ring = {"ls": "", "marker": "o", "mfc": "none", "ms": 7, "mew": 1.4, "clip_on": False}
    at = np.arange(0, figure.steps + 1, max(1, figure.steps // _POINTS))
    curves = [curve for curve in figure.curves if curve.panel == panel]
    legend, rings = [], []
    for curve, color, dash in zip(curves, cycle(_COLORS), cycle(_DASHES), strict=False):
        runs = values[curve.label][:, at]
        if figure.spread and len(runs) > 1:
            low, high = _shown(runs.min(axis=0)), _shown(runs.max(axis=0))
            ax.fill_between(at, low, high, color=color, alpha=0.15, lw=0)
        label = curve.legend or curve.label
        legend += ax.plot(at, _shown(runs.mean(axis=0)), color=color, ls=dash, lw=1.7, label=label)
        for known in figure.references:
            if known.curve == curve.label and known.step is not None and known.step <= figure.steps:
                rings += ax.plot(known.step, known.value, mec=color, **ring)
    return [*legend, *([Line2D([], [], mec="gray", label="reference", **ring)] if rings else [])]


def _shown(curve: Array) -> Array:
    """Zeros have no place on a logarithmic axis."""
    return np.where(curve > 0, curve, np.nan)
