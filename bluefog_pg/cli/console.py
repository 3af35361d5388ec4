"""The terminal as all commands write to it."""

from rich.console import Console

PIPE_WIDTH = 160
"""Columns of a file or a pipe, where rich would take 80 and wrap tables."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # rich would exit with code 1; `bluefog_pg.cli.main` knows better


def make_console() -> Console:
    """Returns a console that prints text as it is: nothing in it is markup or an emoji."""
    console = _Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console
