"""Means over all ranks of a group, by its own allreduce."""

from collections.abc import Sequence
from typing import Any

import torch

HALVES = (torch.float16, torch.bfloat16)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a float32 copy of half precision, in which sums are taken, and others as they are."""
    return tensor.float() if tensor.dtype in HALVES else tensor


class Mean:
    """An exchange under way: each value's mean over all ranks arrives in its place of `arrivals`.

    A value may be its own arrival. Half precision takes a float32 copy for as long as it lasts.
    """

    def __init__(
        self, values: Sequence[torch.Tensor], arrivals: Sequence[torch.Tensor], backend: Any
    ) -> None:
        self._arrivals = list(arrivals)
        self._size = backend.size()
        self._sums = [_own(*pair) for pair in zip(values, arrivals, strict=True)]
        self._works = [backend.allreduce([total]) for total in self._sums]

    def wait(self) -> None:
        """Waits for all of them. Raises what the first failure raised."""
        failures = []
        for work in self._works:
            try:
                work.wait()
            except Exception as failure:  # the others still write to their memory
                failures.append(failure)
        if failures:
            raise failures[0]
        for total, arrival in zip(self._sums, self._arrivals, strict=True):
            torch.div(total, self._size, out=arrival)


def _own(value: torch.Tensor, arrival: torch.Tensor) -> torch.Tensor:
    """Returns the value in memory in which it may be summed up."""
    if value.dtype in HALVES:
        return widened(value)
    return value if value is arrival else arrival.copy_(value)
