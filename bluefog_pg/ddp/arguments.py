"""Arguments of DistributedDataParallel, those that cannot be honoured for the most part."""

import itertools
from typing import Any

import torch
from torch import nn

# Keywords of DDP that have no meaning here; given with another value than the default they raise.
_REFUSED = {
    "bucket_cap_mb_list": (None, "give all buckets one bucket_cap_mb"),
    "check_reduction": (False, "it does nothing in DDP either"),
    "delay_all_reduce_named_params": (None, "gradients are not reduced"),
    "param_to_hook_all_reduce": (None, "gradients are not reduced"),
    "mixed_precision": (None, "use torch.autocast"),
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


def first_given(*values: bool | None, default: bool) -> bool:
    """Returns the first that is not None."""
    return next((value for value in values if value is not None), default)


def check_devices(module: nn.Module, device_ids: list[Any] | None, output_device: Any) -> None:
    """Raises ValueError unless everything is on the CPU."""
    for asked in [*(device_ids or []), *([] if output_device is None else [output_device])]:
        if torch.device(asked).type != "cpu":
            raise ValueError(
                f"device_ids={device_ids}, output_device={output_device}: neighbor operations have "
                "no CUDA transport yet; leave both out and keep the module on the CPU"
            )
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.device.type != "cpu":
            raise ValueError(
                f"{name} is on {tensor.device}: neighbor operations have no CUDA transport yet"
            )
