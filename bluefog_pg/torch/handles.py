"""Handles: ints that stand for operations under way."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
import torch.distributed as dist

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
        self._works, self._finish = works, finish

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


def submit(operation: str, name: str | None, start: Callable[[], Job]) -> int:
    """Starts an operation, and returns its handle.

    Where ranks disagree, which `start` reports as MismatchError, `synchronize` raises it.

    Raises:
        ValueError: one of this name is under way, or `suspend` has been called.
    """
    if current().is_suspended:
        raise ValueError("BlueFog is suspended; use bf.resume() first.")
    handle = next(_numbers)
    name = f"{operation}.noname.{handle}" if name is None else f"{operation}.{name}"
    if any(other.name == name and not other.job.done() for other in _pending.values()):
        raise ValueError(
            f"DUPLICATE_NAME: {name} is under way; synchronize it first, or give another name"
        )
    with timeline.enqueue(operation, name):
        try:
            job = start()
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
    """Waits until all ranks have come here."""
    dist.barrier(group=current().group)


def forget_all() -> None:
    """Drops all handles."""
    _pending.clear()


def _find(handle: int) -> _Pending:
    if handle not in _pending:
        raise ValueError(f"Cannot find handle to synchronize: {handle!r}")
    return _pending[handle]
