"""What a figure is: curves to compute, and values that are known of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluefog_pg.simulate.rounds import Array

OnStep = Callable[[], object]

EXACT = 1e-13
"""A curve is exact from where it is below this part of its start on: what is left is rounding."""


@dataclass(frozen=True)
class Curve:
    """A line of a figure.

    label: its name, unique in the figure.
    trace: called with a seed and a function to call after each step; returns the values after
        0, 1, ..., steps steps.
    panel: title of the axes that it is drawn on.
    legend: what it is called there; by default the label.
    """

    label: str
    trace: Callable[[int, OnStep], Array]
    panel: str = ""
    legend: str = ""


@dataclass(frozen=True)
class Reference:
    """A value that is known of a curve.

    step: where; None if `value` is itself the first step at which the curve is exact.
    """

    curve: str
    step: int | None
    value: float


@dataclass(frozen=True)
class Figure:
    """Curves over `steps` steps, each averaged over `runs` seeds.

    source: where the references come from, and in what the figure differs from there.
    spread: whether to draw a band from the least to the largest of the runs.
    same_lines: whether the last panel has the lines of all; they then share legend and y axis.
    """

    title: str
    ylabel: str
    source: str
    steps: int
    runs: int
    curves: Sequence[Curve]
    references: Sequence[Reference] = ()
    spread: bool = True
    same_lines: bool = False


@dataclass(frozen=True)
class Comparison:
    """A reference and what was computed in its place."""

    reference: Reference
    computed: float

    def as_json(self) -> dict[str, Any]:
        r = self.reference
        what = "first exact step" if r.step is None else f"value at step {r.step}"
        computed = self.computed if np.isfinite(self.computed) else None  # JSON has no infinity
        return {"curve": r.curve, "what": what, "reference": r.value, "computed": computed}


Values = Mapping[str, Array]
"""Label -> the curve's values, shape (runs, steps + 1)."""


def compute(figure: Figure, seed: int = 0, on_step: OnStep = lambda: None) -> dict[str, Array]:
    """Runs all curves with the seeds seed, seed + 1, ...

    Calls on_step len(curves) * runs * steps times.
    """
    seeds = range(seed, seed + figure.runs)
    return {
        curve.label: np.array([curve.trace(run, on_step) for run in seeds])
        for curve in figure.curves
    }


def compare(figure: Figure, values: Values) -> list[Comparison]:
    """Puts what was computed, the mean over the runs, next to each reference."""
    return [
        Comparison(r, _at(values[r.curve].mean(axis=0), r.step))
        for r in figure.references
        if r.step is None or r.step <= figure.steps
    ]


def first_exact(curve: Array) -> float:
    """Returns the first step from which on a curve is exact (see `EXACT`), or infinity."""
    above = np.flatnonzero(curve > EXACT * curve[0])
    first = int(above[-1]) + 1 if len(above) else 0
    return float(first) if first < len(curve) else float("inf")


def _at(curve: Array, step: int | None) -> float:
    return first_exact(curve) if step is None else float(curve[step])
