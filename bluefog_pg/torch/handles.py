"""Handles: ints that stand for operations under way."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
import torch.distributed as dist

from bluefog_pg import windows
from bluefog_pg.errors import MismatchError
from bluefog_pg.torch import timeline
from bluefog_pg.torch.context import current


class Job(Protocol):
    """What is under way; a concurrent.futures.Future is one."""

    def done(self) -> bool: ...
    def result(self) -> torch.Tensor: ...


class Works:
    """Works of torch.distributed, and what makes the result once they have ended."""

    def __init__(self, works: Sequence[Any], finish: Callable[[], torch.Tensor]) -> None:
        self._works = [work for work in works if work is not None]  # of a call that has waited
        self._finish = finish

    def done(self) -> bool:
        return all(work.is_completed() for work in self._works)

    def result(self) -> torch.Tensor:
        for work in self._works:
            work.wait()
        return self._finish()


@dataclass
class _Pending:
    name: str
    job: Job


_pending: dict[int, _Pending] = {}
_numbers = count()


Start = Callable[[bool], Job]
"""Starts an operation; of False it may return a job that has ended, and save a thread's work."""
Call = tuple[str, str | None, Start]
"""An operation, the name that the program has given, and how to start it."""


def run(operation: str, name: str | None, start: Start) -> torch.Tensor:
    """Does what `submit` and `synchronize` do."""
    with timeline.enqueue(operation, _checked(operation, name)):
        return start(False).result()


def submit(operation: str, name: str | None, start: Start) -> int:
    """Starts an operation, and returns its handle.

    Where ranks disagree, which `start` reports as MismatchError, `synchronize` raises it.

    Raises:
        ValueError: one of this name is under way, or `suspend` has been called.
    """
    handle = next(_numbers)
    name = _checked(operation, name) or f"{operation}.noname.{handle}"
    with timeline.enqueue(operation, name):
        try:
            job = start(True)
        except MismatchError as error:
            job = Future()
            job.set_exception(error)
    _pending[handle] = _Pending(name, job)
    return handle


def poll(handle: int) -> bool:
    """Whether the operation has ended, so that `synchronize` returns at once.

    Raises:
        ValueError: no such handle, or it has been synchronized.
    """
    return _find(handle).job.done()


def synchronize(handle: int) -> torch.Tensor:
    """Waits for an operation, returns its output, and forgets the handle.

    Raises:
        ValueError: no such handle, it has been synchronized, or the ranks disagree.
        BluefogError: other failures between ranks, see `bluefog_pg.errors`.
    """
    pending = _find(handle)
    del _pending[handle]
    return pending.job.result()


wait = synchronize


def barrier() -> None:
    """Waits until all ranks have come here, and what they have put into windows is there."""
    group = current().group
    for name in windows.get_current_created_window_names(group=group):
        windows.win_flush(name, group=group)
    dist.barrier(group=group)


def forget_all() -> None:
    """Drops all handles."""
    _pending.clear()


def _checked(operation: str, name: str | None) -> str:
    """Returns the full name, or "" without a name, if an operation of it may start."""
    if current().is_suspended:
        raise ValueError("BlueFog is suspended; use bf.resume() first.")
    if name is None:
        return ""
    full = f"{operation}.{name}"
    if any(other.name == full and not other.job.done() for other in _pending.values()):
        raise ValueError(
            f"DUPLICATE_NAME: {full} is under way; synchronize it first, or give another name"
        )
    return full


def _find(handle: int) -> _Pending:
    if handle not in _pending:
        raise ValueError(f"Cannot find handle to synchronize: {handle!r}")
    return _pending[handle]
