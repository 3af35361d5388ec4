"""Exact averages over all ranks. Collective."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from bluefog_pg.blocks.flat import split_into_buckets
from bluefog_pg.blocks.mean import widened

Group = list[torch.Tensor]


def means(tensors: Iterable[torch.Tensor], backend: Any) -> Iterator[tuple[Group, torch.Tensor]]:
    """Gives tensors of one dtype and their mean over all ranks, flat; of halves in float32."""
    for group in split_into_buckets(tensors, cap_bytes=2**62):
        flat = flatten(group)
        backend.allreduce([flat]).wait()
        yield group, flat.div_(backend.size())


def put_means_in_place(tensors: Iterable[torch.Tensor], backend: Any) -> None:
    """Replaces each tensor by its mean over all ranks."""
    with torch.no_grad():
        for group, flat in means(tensors, backend):
            parts = flat.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(
                group, [part.view(tensor.shape) for tensor, part in zip(group, parts, strict=True)]
            )


def distance_from_mean(tensors: Iterable[torch.Tensor], backend: Any) -> float:
    """Returns sqrt(1/n sum_i ||x_i - mean(x)||^2), with x all of the tensors together."""
    with torch.no_grad():
        squares = torch.zeros(1, dtype=torch.float64)
        for group, mean in means(tensors, backend):
            squares += (flatten(group).double() - mean.double()).square().sum().cpu()
    backend.allreduce([squares]).wait()
    return float((squares / backend.size()).sqrt())


def flatten(group: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns a copy of all of them in one; half precision is widened to float32."""
    return widened(torch.cat([tensor.detach().reshape(-1) for tensor in group]))
