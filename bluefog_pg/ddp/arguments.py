"""Arguments of DistributedDataParallel, those that cannot be honoured for the most part."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.utils import _to_kwargs

from bluefog_pg.algorithms.algorithm import Algorithm

# Keywords of DDP that have no meaning here; given with another value than the default they raise.
_REFUSED = {
    "bucket_cap_mb_list": (None, "give all buckets one bucket_cap_mb"),
    "check_reduction": (False, "it does nothing in DDP either"),
    "delay_all_reduce_named_params": (None, "gradients are not reduced"),
    "param_to_hook_all_reduce": (None, "gradients are not reduced"),
    "mixed_precision": (None, "use torch.autocast, and payload_dtype for what is sent"),
    "device_mesh": (None, "pass process_group=mesh.get_group(...) of a 1-D mesh"),
    "skip_all_reduce_unused_params": (False, "gradients are not reduced"),
}


def refuse(keywords: dict[str, Any]) -> None:
    """Raises TypeError for a keyword that DDP has not, else ValueError unless it is harmless."""
    for name, value in keywords.items():
        if name not in _REFUSED:
            raise TypeError(f"DecentralizedDataParallel has no keyword {name!r}, nor has DDP")
        default, why = _REFUSED[name]
        if value is not default:
            raise ValueError(
                f"DecentralizedDataParallel cannot honour DDP's {name}={value!r}: {why}"
            )


def check_payload(
    payload_dtype: torch.dtype | None,
    algorithm: Algorithm,
    module: nn.Module,
    is_narrower: Callable[[torch.dtype, torch.dtype], bool],
) -> None:
    """Raises ValueError where the algorithm cannot have it, TypeError where it narrows nothing."""
    if payload_dtype is None:
        return
    if not isinstance(payload_dtype, torch.dtype):
        raise TypeError(f"payload_dtype must be a torch.dtype or None, got {payload_dtype!r}")
    if algorithm.keeps_dtype:
        raise ValueError(
            f"algorithm={algorithm.name!r} cannot have payload_dtype={payload_dtype}: "
            f"{algorithm.keeps_dtype}; leave payload_dtype out, or take another algorithm"
        )
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if dtypes and not any(is_narrower(payload_dtype, dtype) for dtype in dtypes):
        raise TypeError(
            f"payload_dtype={payload_dtype}: parameters are {', '.join(sorted(map(str, dtypes)))}; "
            "float32 goes as bfloat16, and float32, float16 and bfloat16 go as float8_e4m3fn or "
            "float8_e5m2"
        )


def first_given(*values: bool | None, default: bool) -> bool:
    """Returns the first that is not None."""
    return next((value for value in values if value is not None), default)


def device_of(module: nn.Module, device_ids: list[Any] | None, output_device: Any) -> torch.device:
    """Returns the device that the whole module is on.

    Raises:
        ValueError: it is on several, or on one that is not served, or on another one than
            device_ids or output_device say.
    """
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    first, device = "", torch.device("cpu")
    for name, tensor in tensors:
        if tensor.device.type not in ("cpu", "cuda"):
            raise ValueError(f"{name} is on {tensor.device}: cpu and cuda are served")
        if first and tensor.device != device:
            raise ValueError(
                f"{first} is on {device}, but {name} is on {tensor.device}: a module is averaged "
                "on one device"
            )
        first, device = name, tensor.device
    for asked in [*(device_ids or []), *([] if output_device is None else [output_device])]:
        wanted = torch.device(asked)
        if wanted.type != device.type or wanted.index not in (None, device.index):
            raise ValueError(
                f"device_ids={device_ids}, output_device={output_device}: the module is on "
                f"{device}; move it with module.to(...) first, or leave both out"
            )
    return device


def moved(args: Any, kwargs: Any, device: torch.device) -> tuple[Any, Any]:
    """Returns arguments of a forward pass with their tensors on `device`, as DDP moves them."""
    if not (args or kwargs):
        return args, kwargs
    of_devices = _to_kwargs(args, kwargs, device, False)
    return of_devices[0][0], of_devices[1][0]
