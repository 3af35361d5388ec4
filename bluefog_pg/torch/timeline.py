"""Timelines, by torch.profiler.

With the environment variable BLUEFOG_TIMELINE=prefix (`bfrun --timeline-filename prefix`) a
profiler runs from `init` to `shutdown` and writes prefix<rank>.json, a Chrome trace. Activities
appear in the trace of any torch.profiler that the program runs itself, too.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bluefog_pg.torch.context import Context

FILE_PREFIX = "BLUEFOG_TIMELINE"

_logger = logging.getLogger("bluefog_pg.torch")
_open: dict[str, record_function] = {}
_complained = False


def begin(context: Context) -> None:
    """Starts the profiler, if the environment asks for a timeline; `shutdown` ends it."""
    if prefix := os.environ.get(FILE_PREFIX):
        profiler = profile(activities=[ProfilerActivity.CPU])
        profiler.start()
        context.resources.callback(_write, profiler, f"{prefix}{context.backend.rank()}.json")


def is_on() -> bool:
    """Whether a profiler runs."""
    return torch.autograd._profiler_enabled()


def timeline_start_activity(tensor_name: str, activity_name: str) -> bool:
    """Begins an activity, which `timeline_end_activity` ends in the same thread.

    Returns:
        False, with one line in the log, if no profiler runs.
    """
    if not _is_on_or_complain():
        return False
    timeline_end_activity(tensor_name)
    _open[tensor_name] = record_function(f"{tensor_name}: {activity_name}")
    _open[tensor_name].__enter__()
    return True


def timeline_end_activity(tensor_name: str) -> bool:
    """Ends the activity of this tensor; False if there is none."""
    activity = _open.pop(tensor_name, None)
    if activity is None:
        return False
    activity.__exit__(None, None, None)
    return True


@contextmanager
def timeline_context(tensor_name: str, activity_name: str) -> Iterator[None]:
    """Around an activity."""
    timeline_start_activity(tensor_name, activity_name)
    try:
        yield
    finally:
        timeline_end_activity(tensor_name)


def enqueue(operation: str, name: str) -> AbstractContextManager[object]:
    """Around the start of an operation."""
    if not is_on():
        return nullcontext()
    return record_function(f"{name or operation}: ENQUEUE_{operation.upper()}")


def _write(profiler: profile, path: str) -> None:
    for tensor_name in [*_open]:
        timeline_end_activity(tensor_name)
    profiler.stop()
    profiler.export_chrome_trace(path)


def _is_on_or_complain() -> bool:
    global _complained
    if not is_on() and not _complained:
        _complained = True
        _logger.error(
            "no timeline: set %s to the start of a file name before bf.init(), or run "
            "torch.profiler",
            FILE_PREFIX,
        )
    return is_on()
