"""Equal models on all ranks: checked, and broadcast from rank 0."""

import json
from typing import Any

import torch
from torch import nn

from bluefog_pg.errors import MismatchError
from bluefog_pg.group import all_gather_bytes


def ignored_names(module: nn.Module) -> set[str]:
    """Returns the parameters and buffers that DDP would leave alone as well."""
    return set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))


def floating_buffers(module: nn.Module) -> list[torch.Tensor]:
    """Returns the buffers that have an average: running statistics, but not counters."""
    ignored = ignored_names(module)
    return [
        buffer
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and name not in ignored
    ]


def check_equal(module: nn.Module, backend: Any) -> None:
    """Raises MismatchError, on all ranks alike, unless names, dtypes, shapes and strides are."""
    own = [
        [name, str(t.dtype), list(t.shape), t.requires_grad, _unusual_strides(t)]
        for name, t in _states(module)
    ]
    everybody = [json.loads(text) for text in all_gather_bytes(backend, json.dumps(own).encode())]
    for rank, theirs in enumerate(everybody):
        if theirs != everybody[0]:
            difference = _difference(everybody[0], theirs, rank)
            raise MismatchError(f"ranks 0 and {rank} have different models: {difference}")


def broadcast(module: nn.Module, backend: Any) -> None:
    """Copies rank 0's parameters and buffers to all ranks."""
    with torch.no_grad():
        for _, tensor in _states(module):
            value = tensor.detach().contiguous()
            backend.broadcast(value, 0).wait()
            tensor.copy_(value)


def _states(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    ignored = ignored_names(module)
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor) for name, tensor in named if name not in ignored]


def _unusual_strides(tensor: torch.Tensor) -> list[int]:
    """Those of a tensor that is not contiguous; values are averaged in the order of memory."""
    return [] if tensor.is_contiguous() else list(tensor.stride())


def _difference(first: list[Any], other: list[Any], rank: int) -> str:
    for mine, theirs in zip(first, other, strict=False):
        if mine != theirs:
            return f"rank 0 has {_describe(mine)}, rank {rank} has {_describe(theirs)}"
    return f"rank 0 has {len(first)} parameters and buffers, rank {rank} has {len(other)}"


def _describe(entry: list[Any]) -> str:
    name, dtype, shape, trained, strides = entry
    kind = "" if trained else " (frozen)"
    order = f" with strides {strides}" if strides else ""
    return f"{name} {dtype.removeprefix('torch.')}{shape}{kind}{order}"
