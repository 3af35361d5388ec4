"""Tensors that are averaged in one exchange, and where their averages arrive."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

AVERAGED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Bucket:
    """Parameters of one dtype that live side by side in memory which neighbours read in place.

    There are two such pieces of memory, x in the one and W x arriving in the other; `finish` makes
    them change places, so that nothing is copied. Values must not change between `start` and
    `finish`. Assigning to ``parameter.data`` takes a parameter out of its bucket: see `is_current`.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], backend: Any) -> None:
        self.tensors = list(tensors)
        self._halves = [_Flat(self.tensors, backend) for _ in range(2)]
        self._work: Any = None
        self._halves[0].fill(self.tensors)
        self._move_to(self._halves[0])

    def is_current(self) -> bool:
        """Whether the parameters still live in the bucket."""
        return all(
            tensor.data_ptr() == view.data_ptr() and tensor.dtype == view.dtype
            for tensor, view in zip(self.tensors, self._halves[0].views, strict=True)
        )

    def start(self, backend: Any, plan: Any, at: int) -> None:
        """Posts the exchange and returns at once."""
        values, averages = self._halves
        self._work, _ = backend.neighbor_allreduce([values.flat], [averages.flat], plan, at, True)

    def wait(self) -> None:
        """Waits for the averages. Raises what the exchange raised."""
        self._work.wait()

    def finish(self) -> None:
        """Puts the averages that have arrived in place."""
        self._halves.reverse()
        self._move_to(self._halves[0])
        for tensor in self.tensors:  # autograd learns that values changed
            torch.autograd.graph.increment_version(tensor)

    def _move_to(self, half: "_Flat") -> None:
        for tensor, view in zip(self.tensors, half.views, strict=True):
            tensor.data = view


class BufferBucket(Bucket):
    """Buffers, such as running statistics: the forward pass may change them during the exchange.

    They stay where they are. A copy is sent, and what happened meanwhile is kept:
    b <- W b_sent + (b - b_sent).
    """

    def is_current(self) -> bool:
        return True

    def start(self, backend: Any, plan: Any, at: int) -> None:
        self._halves[0].fill(self.tensors)
        super().start(backend, plan, at)

    def finish(self) -> None:
        sent, averages = self._halves
        averages.flat.sub_(sent.flat)
        torch._foreach_add_(self.tensors, averages.views)

    def _move_to(self, half: "_Flat") -> None:
        pass


class _Flat:
    """One tensor in memory of the backend, and views of it with the shapes of given ones."""

    ALIGNMENT = 64  # bytes

    def __init__(self, tensors: Sequence[torch.Tensor], backend: Any) -> None:
        dtype, device = tensors[0].dtype, tensors[0].device
        unit = self.ALIGNMENT // dtype.itemsize
        starts = [0]
        for tensor in tensors:
            starts.append(starts[-1] + -(-tensor.numel() // unit) * unit)
        self.flat = backend.allocate_tensor(starts[-1], dtype=dtype, device=device).zero_()
        self.views = [
            self.flat[start : start + tensor.numel()].as_strided(tensor.shape, _strides(tensor))
            for start, tensor in zip(starts, tensors, strict=False)
        ]

    def fill(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copies the values of the given tensors."""
        torch._foreach_copy_(self.views, [tensor.detach() for tensor in tensors])


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Its own where it is dense (channels_last is), else those of a contiguous one."""
    return torch.empty_like(tensor, memory_format=torch.preserve_format).stride()


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


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
