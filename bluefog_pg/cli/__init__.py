"""The command ``bluefog-pg``.

Each command is a module of this package with a docstring (its help), ``add_arguments(parser)`` and
``run(args) -> int`` (the exit code: 0 all is well, 1 a problem was found, 2 wrong usage). Modules
import what is slow to load (torch, networkx, matplotlib) inside ``run``, so that help is instant.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from bluefog_pg import __version__

COMMANDS = ("algorithms", "doctor", "simulate", "topo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: that of this process) and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="bluefog-pg", description="Decentralized data parallelism: tools around bluefog."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"bluefog_pg.cli.{name}")
        command = add_command(commands, name, module.__doc__ or "")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `bluefog-pg topo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"bluefog-pg: {error}", file=sys.stderr)
        return 2


def add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Adds a subcommand with the help `text`, whose first line stands in the list of commands."""
    text = text.strip()
    return commands.add_parser(
        name,
        help=text.splitlines()[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
