"""Tensors that are averaged in one exchange, and where their averages arrive."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

AVERAGED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Bucket:
    """Parameters of one dtype, and a flat buffer of their size for the averages.

    Values are sent from the parameters themselves: they must not change between `start` and
    `finish`, which replaces them: x <- W x.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = list(tensors)
        self.averages = _views(self.tensors)
        self._work: Any = None

    def start(self, backend: Any, plan: Any, at: int) -> None:
        """Posts the exchange and returns at once."""
        self._work, _ = backend.neighbor_allreduce(self._values(), self.averages, plan, at, True)

    def wait(self) -> None:
        """Waits for the averages. Raises what the exchange raised."""
        self._work.wait()

    def finish(self) -> None:
        """Puts the averages that have arrived in place."""
        torch._foreach_copy_(self.tensors, self.averages)

    def _values(self) -> list[torch.Tensor]:
        return [tensor.detach() for tensor in self.tensors]


class BufferBucket(Bucket):
    """Buffers, such as running statistics: the forward pass may change them during the exchange.

    A copy is sent, and what happened meanwhile is kept: b <- W b_sent + (b - b_sent).
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__(tensors)
        self._sent = _views(self.tensors)

    def finish(self) -> None:
        torch._foreach_sub_(self.averages, self._sent)
        torch._foreach_add_(self.tensors, self.averages)

    def _values(self) -> list[torch.Tensor]:
        torch._foreach_copy_(self._sent, [tensor.detach() for tensor in self.tensors])
        return self._sent


def split_into_buckets(tensors: Iterable[torch.Tensor], cap_bytes: int) -> list[list[torch.Tensor]]:
    """Groups tensors by dtype, in order, into lists of at most `cap_bytes` (or one tensor)."""
    buckets: list[list[torch.Tensor]] = []
    open_by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        bucket = open_by_dtype.get(tensor.dtype)
        if bucket is None or _nbytes(bucket) + _nbytes([tensor]) > cap_bytes:
            bucket = open_by_dtype[tensor.dtype] = []
            buckets.append(bucket)
        bucket.append(tensor)
    return buckets


def flat_by_dtype(tensors: Iterable[torch.Tensor]) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
    """Copies tensors into one flat tensor per dtype; half precision is widened to float32."""
    flats = []
    for group in split_into_buckets(tensors, cap_bytes=2**62):
        wide = torch.float32 if group[0].dtype in (torch.float16, torch.bfloat16) else None
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in group])
        flats.append((group, flat if wide is None else flat.to(wide)))
    return flats


def copy_from_flat(tensors: Sequence[torch.Tensor], flat: torch.Tensor) -> None:
    """Writes the values of a flat tensor back into the tensors that it was made of."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _views(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns contiguous tensors of these shapes that lie side by side in one allocation."""
    flat = torch.empty(
        sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device=tensors[0].device
    )
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
