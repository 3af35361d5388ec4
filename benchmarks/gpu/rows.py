"""Rows of the report: one JSON object per line, on standard output and in the file GPU_CHECK_ROWS.

A row has the name of its check, and `ok` where something was right or wrong, or `value`, `unit` and
perhaps `target` where something was measured.
"""

import argparse
import json
import os
import traceback
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def checked(check: str, wrong: int, **details: Any) -> Row:
    """wrong: how many values are."""
    return {"check": check, "ok": wrong == 0, "wrong": wrong, **details}


def failed(check: str, error: str, **details: Any) -> Row:
    return {"check": check, "ok": False, "error": error, **details}


def measured(
    check: str,
    value: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    **details: Any,
) -> Row:
    """A target that is missed is told, and is no failure."""
    row = {"check": check, "value": value, "unit": unit}
    if at_least is not None:
        row |= {"target": f">= {at_least}", "met": value >= at_least}
    if at_most is not None:
        row |= {"target": f"<= {at_most}", "met": value <= at_most}
    return row | details


def emit(row: Row) -> Row:
    line = json.dumps(row)
    print(line, flush=True)
    if path := os.environ.get("GPU_CHECK_ROWS"):
        with open(path, "a") as file:
            file.write(line + "\n")
    return row


def attempt(check: str, function: Callable[[], Row]) -> Row:
    """Emits the row that function() returns, or one of its failure."""
    try:
        return emit(function())
    except Exception as error:
        return emit(failed(check, _last_words(error)))


def _last_words(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-2000:]


def parser(doc: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def status(rows: list[Row]) -> int:
    """The exit status of a part."""
    return 0 if rows and all(row.get("ok", True) for row in rows) else 1
