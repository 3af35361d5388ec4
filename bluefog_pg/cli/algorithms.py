"""List the algorithms of DecentralizedDataParallel: equations, needs and costs.

Memory, and what is sent, are in sizes of the model: what a rank holds beside parameters, gradients
and the optimizer's state, and what it sends to each out-neighbour in a step that averages.
"""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bluefog_pg.algorithms.describe import Description

HEADINGS = ("algorithm", "update", "needs", "memory", "sends", "arXiv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--markdown", action="store_true", help="print as a Markdown table")


def run(args: argparse.Namespace) -> int:
    from bluefog_pg.algorithms import names
    from bluefog_pg.algorithms.describe import describe

    known = [describe(name) for name in args.names or names()]
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in known], indent=1))
    elif args.markdown:
        print(_markdown(known))
    else:
        _print_table(known)
    return 0


def _markdown(known: "list[Description]") -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    for one in known:
        name, update, *rest = _cells(one)
        lines.append([f"`{name}`", f"{one.title}: {update}", *rest])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _print_table(known: "list[Description]") -> None:
    from rich.table import Table

    from bluefog_pg.cli.console import make_console

    table = Table(*HEADINGS, show_lines=True)
    for one in known:
        table.add_row(*_cells(one))
    make_console().print(table)


def _cells(one: "Description") -> tuple[str, ...]:
    return (one.name, one.equation, one.needs, one.memory, one.sends, one.source)
