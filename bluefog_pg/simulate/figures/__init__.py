"""Figures of the papers, each a function of (n, steps, runs) with the published defaults.

To add one, write such a function that returns a `Figure`, list it here and in
``bluefog_pg.cli.simulate``.
"""

from collections.abc import Callable

from .consensus import consensus_figure
from .draw import check_path, draw
from .figure import Comparison, Curve, Figure, Reference, Values, compare, compute, first_exact
from .least_squares import ceca_least_squares, equitopo_least_squares
from .losses import lost_messages
from .methods import methods_figure
from .tracking import gradient_tracking

FIGURES: dict[str, Callable[..., Figure]] = {
    "ceca-least-squares": ceca_least_squares,
    "consensus": consensus_figure,
    "equitopo-least-squares": equitopo_least_squares,
    "gradient-tracking": gradient_tracking,
    "lost-messages": lost_messages,
    "methods": methods_figure,
}

__all__ = [
    "FIGURES",
    "Comparison",
    "Curve",
    "Figure",
    "Reference",
    "Values",
    "check_path",
    "compare",
    "compute",
    "draw",
    "first_exact",
]
