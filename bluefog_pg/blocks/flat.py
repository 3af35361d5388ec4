"""One flat tensor for many, and lists of tensors cut to what goes as one exchange."""

from collections.abc import Callable, Iterable, Sequence

import torch

ALIGNMENT = 64  # bytes
Allocate = Callable[..., torch.Tensor]
"""Like ``torch.empty(numel, dtype=, device=)``."""


class Flat:
    """A flat tensor of zeros, and views of it with the shapes and strides of given tensors."""

    def __init__(self, tensors: Sequence[torch.Tensor], allocate: Allocate = torch.empty) -> None:
        dtype, device = tensors[0].dtype, tensors[0].device
        unit = ALIGNMENT // dtype.itemsize
        starts = [0]
        for tensor in tensors:
            starts.append(starts[-1] + -(-tensor.numel() // unit) * unit)
        self.flat = allocate(starts[-1], dtype=dtype, device=device).zero_()
        self._layout = [
            (start, tensor.numel(), tensor.shape, _strides(tensor))
            for start, tensor in zip(starts, tensors, strict=False)
        ]
        self.views = self.cut(self.flat)

    def cut(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Returns views, like its own, of another flat tensor of the same layout."""
        return [
            flat[start : start + numel].as_strided(shape, strides)
            for start, numel, shape, strides in self._layout
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


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
