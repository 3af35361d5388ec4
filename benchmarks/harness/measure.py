"""Takes the times: contenders in turn, in the same processes, all ranks at once."""

import time
from collections.abc import Callable
from typing import Any

import torch

from harness.case import Contender
from harness.world import World

MOST_CALLS = 1000
FEW_CALLS = 8
Make = Callable[[], Contender]


class Entry:
    """A contender's times in seconds, or why it has none; the same on all ranks."""

    def __init__(self, world: World, make: Make) -> None:
        self.world = world
        self.times: list[float] = []
        self.failure: str | None = None
        self.wrong: int | None = None
        self.calls = 1
        self._together(lambda: self._set_contender(make()))

    def choose_calls(self, seconds: float, fewest: int) -> None:
        """Has a block take about `seconds`."""
        self._block(1)  # connects, and brings pages into memory
        estimate = self._block(fewest)
        if estimate is not None:
            self.calls = min(max(fewest, int(seconds / estimate)), MOST_CALLS)

    def add_sample(self) -> None:
        seconds = self._block(self.calls)
        if seconds is not None:
            self.times.append(seconds)

    def check(self) -> None:
        counts = self._together(lambda: self._contender.count_wrong())
        self.wrong = None if counts is None or None in counts else sum(counts)

    def quantiles(self, factor: float = 1) -> list[float]:
        """Returns min, p50, p99, max, times `factor`."""
        at = torch.tensor([0, 0.5, 0.99, 1], dtype=torch.float64)
        times = torch.tensor(self.times, dtype=torch.float64)
        return [factor * float(value) for value in torch.quantile(times, at)]

    def _block(self, calls: int) -> float | None:
        """Returns the seconds per call, from the first rank's start to the last one's end."""
        spans = self._together(lambda: _timed(self._contender.call, calls))
        if spans is None:
            return None
        starts, ends = zip(*spans, strict=True)
        return (max(ends) - min(starts)) / calls

    def _set_contender(self, contender: Contender) -> None:
        self._contender = contender

    def _together(self, function: Callable[[], Any]) -> list[Any] | None:
        """Returns what function() returns on each rank; None if it fails on one, now or before."""
        if self.failure is not None:
            return None
        try:
            result, reason = function(), None
        except Exception as error:
            result, reason = None, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        outcomes = self.world.gather((result, reason))
        self.failure = next((reason for _, reason in outcomes if reason), None)
        return None if self.failure else [result for result, _ in outcomes]


def compare(
    world: World, contenders: dict[str, Make], samples: int, seconds: float, fewest_calls: int
) -> dict[str, Entry]:
    """Measures all contenders, `samples` blocks of about `seconds` each, one after the other."""
    entries = {name: Entry(world, make) for name, make in contenders.items()}
    for entry in entries.values():
        entry.choose_calls(seconds, fewest_calls)
    for _ in range(samples):
        for entry in entries.values():
            entry.add_sample()
    for entry in entries.values():
        entry.check()
    return entries


def _timed(call: Callable[[int], object], calls: int) -> tuple[float, float]:
    """Returns start and end of the block.

    One more call goes first, in which ranks meet and the caches forget what others have left there;
    long calls, of which there are few, can do without.
    """
    if calls > FEW_CALLS:
        call(0)
    start = time.monotonic()  # one clock for all processes of a host
    for step in range(1, calls + 1):
        call(step)
    return start, time.monotonic()
