"""What is known of topologies as text, Markdown and JSON."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from bluefog_pg.cli.console import make_console
from bluefog_pg.topology import Analysis, Choice, SizeError, analyze, get, names
from bluefog_pg.topology.analysis.units import bytes_text, factor_text, seconds_text

HEADINGS = ("topology", "period", "degree", "residual", "rate", "spectral gap", "exact after")

LEGEND = """\
- **period**: steps until it repeats; "never" for schedules that are drawn at random, of which the
  first 64 steps are looked at.
- **degree**: the most messages that a rank receives or sends in a step.
- **residual**: what is left of a disagreement at worst after a period (or 64 steps),
  `||W_T ... W_1 - J||_2`, where W mixes and J is the exact average.
- **rate**: the factor per step that makes this residual; 0 for topologies that become exact.
- **spectral gap**: `1 - ||W - J||_2` of a static graph.
- **exact after**: steps, from step 0 on, that give the exact average; empty where none do."""


def print_list(sizes: Sequence[int]) -> None:
    """Prints the registered topologies; with sizes, a table of what they do for each."""
    console = make_console()
    if not sizes:
        table = Table("name", "arguments", "what it is")
        for name in names():
            table.add_row(name, _arguments(name), _summary(name))
        console.print(table)
    for n in sizes:
        table = Table(*HEADINGS, title=f"n = {n}", title_justify="left")
        rows, reasons = _rows(n)
        for row in rows:
            table.add_row(*row)
        console.print(table, *(f"- {reason}" for reason in reasons), sep="\n")


def markdown(sizes: Sequence[int]) -> str:
    """Returns the tables of `print_list` as Markdown, with a legend."""
    lines = [LEGEND]
    for n in sizes:
        rows, reasons = _rows(n)
        lines += ["", f"### n = {n}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line((f"`{name}`", *cells)) for name, *cells in rows]
        if reasons:
            lines += ["", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines)


def as_dict(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the same for JSON: with sizes, an analysis or a reason for each name and size."""
    if not sizes:
        return [
            {"name": name, "arguments": _arguments(name), "summary": _summary(name)}
            for name in names()
        ]
    return [{"name": name, "n": n} | _facts(name, n) for n in sizes for name in names()]


def print_analysis(title: str, analysis: Analysis) -> None:
    """Prints all of an analysis."""
    table = Table(title=title, title_justify="left", show_header=False)
    for key, value in _described(analysis):
        table.add_row(key, value)
    make_console().print(table)


def print_choice(choice: Choice) -> None:
    """Prints the explanation, what was ranked, and what was left out."""
    table = Table("topology", "steps", "degree", "per step", "together")
    for candidate in choice.candidates:
        table.add_row(
            str(candidate),
            f"{candidate.steps} (exact)" if candidate.exact else str(candidate.steps),
            str(candidate.degree),
            seconds_text(candidate.seconds_per_step),
            seconds_text(candidate.seconds),
        )
    console = make_console()
    console.print(choice.explanation, table, sep="\n")
    for name, reason in choice.left_out.items():
        console.print(f"left out: {name}: {reason}")


def _described(a: Analysis) -> Iterator[tuple[str, str]]:
    sums = {
        (True, True): "doubly stochastic",
        (True, False): "row-stochastic: the mean of the ranks is not kept",
        (False, True): "column-stochastic: agreement is not kept",
        (False, False): "neither row- nor column-stochastic",
    }[a.row_stochastic, a.column_stochastic]
    yield "ranks", str(a.size)
    yield "period", _period(a)
    yield "weights", f"{sums}; {'' if a.symmetric else 'not '}symmetric"
    yield "connected", "yes" if a.strongly_connected else "no: some ranks never hear of others"
    yield "degree", f"{a.in_degree} in, {a.out_degree} out"
    yield "exact average", f"after {_steps(a.exact_after)}" if a.exact else "never"
    yield "residual", f"{_residual(a)} after {_steps(a.rounds)}, {factor_text(a.rate)} per step"
    if a.spectral_gap is not None:
        yield "spectral gap", _gap(a)
    yield (
        "sent per step",
        f"{bytes_text(a.bytes_per_step)} by the busiest rank for a model of "
        f"{bytes_text(a.message_bytes)}: {a.allreduce_ratio:.3g} times a ring all-reduce",
    )
    yield (
        "time per step",
        f"{seconds_text(a.seconds_per_step)} predicted; "
        f"ring all-reduce {seconds_text(a.allreduce_seconds)}",
    )
    yield "safe for", ", ".join(a.safe_for) or "none"
    for name, reason in a.refused.items():
        yield f"not for {name}", reason.removeprefix(f"{name} ")


def _rows(n: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows of the table for n ranks, and why some topologies do not exist for it."""
    rows, reasons = [], []
    for name in names():
        try:
            a = analyze(get(name)(n))
        except SizeError as error:
            rows.append((name, *["-"] * (len(HEADINGS) - 1)))
            reasons.append(str(error))
            continue
        rows.append(
            (
                name,
                "never" if a.period is None else str(a.period),
                str(max(a.in_degree, a.out_degree)),
                _residual(a),
                factor_text(a.rate),
                _gap(a),
                "" if a.exact_after is None else str(a.exact_after),
            )
        )
    return rows, reasons


def _facts(name: str, n: int) -> dict[str, Any]:
    try:
        return {"analysis": analyze(get(name)(n)).to_dict()}
    except SizeError as error:
        return {"reason": str(error)}


def _residual(a: Analysis) -> str:
    """Without digits that rounding makes: they differ from one machine to the next."""
    if a.exact_after is not None and a.exact_after <= a.rounds:
        return "0"
    return factor_text(a.residual) if a.residual > 1e-12 else "< 1e-12"


def _gap(a: Analysis) -> str:
    if a.spectral_gap is None:
        return ""
    return f"{a.spectral_gap:.3g}" if abs(a.spectral_gap) > 1e-12 else "0"


def _period(a: Analysis) -> str:
    if a.period is None:
        return f"never repeats; steps 0..{a.rounds - 1} stand for all"
    return "1 (static)" if a.period == 1 else str(a.period)


def _steps(count: int | None) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _arguments(name: str) -> str:
    parameters = list(inspect.signature(get(name)).parameters.values())[1:]
    return ", ".join(
        f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name}={p.default!r}" for p in parameters
    )


def _summary(name: str) -> str:
    return (inspect.getdoc(get(name)) or "").partition("\n\n")[0].replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
