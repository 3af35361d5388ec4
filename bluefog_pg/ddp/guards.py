"""Tensors that may not be used for a while: who does is told, instead of getting wrong numbers.

Their Python class is one whose `__torch_function__` raises. Their shape, dtype and the like can be
asked for as before, and code that torch runs in C++ (autograd, kernels) does not notice.
"""

from typing import Any

import torch
from torch import nn

_SAFE_METHODS = (
    *("size", "dim", "ndimension", "numel", "nelement", "element_size", "__len__", "__hash__"),
    *("stride", "storage_offset", "is_contiguous", "is_floating_point", "is_complex", "get_device"),
)
_VALUES = ("data", "T", "mT", "H", "mH", "real", "imag", "grad_fn", "_base", "_cdata")


class _Guarded:
    """Raises `_misuse()` for whatever would read or write the values."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not _is_about_metadata(func):
            raise RuntimeError(cls._misuse(getattr(func, "__name__", str(func))))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def _misuse(cls, function: str) -> str:
        raise NotImplementedError


class PendingParameter(_Guarded, nn.Parameter):
    """A parameter whose average has not been put in place yet; see `hide`."""

    @classmethod
    def _misuse(cls, function: str) -> str:
        return (
            f"{function} uses a parameter before the module that owns it has been called, so the "
            "average over its neighbours is not in place yet; leave lazy_combine=True of "
            "DecentralizedDataParallel out, and all are in place before the forward pass"
        )


class TakenGradient(_Guarded, torch.Tensor):
    """In the place of a gradient that `step_in_backward` has used and freed."""

    @classmethod
    def like(cls, parameter: torch.Tensor) -> "TakenGradient":
        """Returns one of the parameter's shape, without memory for it."""
        return parameter.detach().new_zeros(()).expand(parameter.shape).as_subclass(cls)

    @classmethod
    def _misuse(cls, function: str) -> str:
        return (
            f"{function} uses a gradient that step_in_backward has taken: the optimizer has "
            "stepped in backward(). Clipping, GradScaler and whatever else looks at gradients "
            "between backward() and optimizer.step() need the ordinary step"
        )


def can_hide(parameter: torch.Tensor) -> bool:
    """Whether it is of the one class that `hide` knows to bring back."""
    return type(parameter) is nn.Parameter


def hide(parameter: torch.Tensor) -> None:
    """Lets any use of its values raise, until `show`."""
    parameter.__class__ = PendingParameter


def show(parameter: torch.Tensor) -> None:
    """Ends what `hide` began."""
    parameter.__class__ = nn.Parameter


def _is_about_metadata(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if name == "__get__":
            return attribute not in _VALUES
        return attribute in ("grad", "requires_grad")
    return name in _SAFE_METHODS
