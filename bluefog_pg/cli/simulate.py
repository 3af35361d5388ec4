"""Reproduce figures of the papers with virtual ranks, in one process.

Prints the values that are known of a figure next to what was computed, and draws it with --plot.
"""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bluefog_pg.simulate.figures import Comparison, Figure, Values

FIGURES = {
    "ceca-least-squares": "DSGD on CECA, EquiDyn and ring (n = 258)",
    "consensus": "consensus error of EquiTopo and CECA (n = 300; try -n 130)",
    "equitopo-least-squares": "DSGD on EquiStatic graphs (n = 300)",
    "gradient-tracking": "gradient tracking on a non-convex problem (n = 300)",
    "lost-messages": "drift of the mean under five rules of repair (n = 16)",
    "methods": "every method on heterogeneous least squares (n = 16)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = "\n".join(f"  {name:24}{text}" for name, text in FIGURES.items())
    parser.epilog = f"figures:\n{figures}"
    parser.add_argument("figure", choices=FIGURES, metavar="FIGURE", help="one of those below")
    parser.add_argument("-n", type=int, help="number of ranks (default: that of the figure)")
    parser.add_argument("--steps", type=_at_least(1), help="iterations (default: as published)")
    parser.add_argument("--runs", type=_at_least(1), help="seeds to average over")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of the first run")
    parser.add_argument("--plot", metavar="FILE", help="draw to a .png, .pdf or .svg file")
    parser.add_argument("--json", action="store_true", help="print curves and comparison as JSON")


def run(args: argparse.Namespace) -> int:
    from bluefog_pg.simulate.figures import FIGURES, check_path, compare, draw

    options = {name: getattr(args, name) for name in ("n", "steps", "runs")}
    chosen = {name: value for name, value in options.items() if value is not None}
    figure = FIGURES[args.figure](**chosen)
    if args.plot:
        check_path(args.plot)
    values = _compute(figure, args.seed)
    if args.plot:
        draw(figure, values, args.plot)
    show = _print_json if args.json else _print_table
    show(figure, values, compare(figure, values))
    return 0


def _at_least(low: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return number


def _compute(figure: "Figure", seed: int) -> "Values":
    from rich.console import Console
    from rich.progress import Progress

    from bluefog_pg.simulate.figures import compute

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        total = len(figure.curves) * figure.runs * figure.steps
        task = progress.add_task(figure.title, total=total)
        return compute(figure, seed, lambda: progress.advance(task))


def _print_json(figure: "Figure", values: "Values", comparisons: "list[Comparison]") -> None:
    curves = {label: runs.mean(axis=0).tolist() for label, runs in values.items()}
    result = {
        "title": figure.title,
        "runs": figure.runs,
        "curves": curves,  # label -> mean over the runs after 0, 1, ... steps
        "comparisons": [comparison.as_json() for comparison in comparisons],
        "source": figure.source,
    }
    print(json.dumps(result, indent=1))


def _print_table(figure: "Figure", values: "Values", comparisons: "list[Comparison]") -> None:
    from rich.table import Table

    from bluefog_pg.cli.console import make_console

    table = Table(title=f"{figure.title}; mean of {figure.runs} run(s)", title_justify="left")
    table.add_column("curve")
    for heading in ("at", "reference", "computed", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, runs in values.items():
        rows = [c for c in comparisons if c.reference.curve == label]
        for c in rows:
            table.add_row(label, *_cells(c))
        if not rows:
            table.add_row(label, str(figure.steps), "", f"{runs[:, -1].mean():.2g}", "")
    console = make_console()
    console.print(table)
    console.print(f"reference: {figure.source}")


def _cells(comparison: "Comparison") -> tuple[str, str, str, str]:
    known, computed = comparison.reference.value, comparison.computed
    step = comparison.reference.step
    if step is None:
        return "exact from", f"{known:.0f}", f"{computed:.0f}", ""
    return str(step), f"{known:.2g}", f"{computed:.2g}", f"{computed / known:.2f}"
