"""Tells an optimizer of the passes of its models, for as long as the optimizer lives."""

import weakref
from typing import Any

import torch
from torch import nn

from bluefog_pg.ddp.backward import BackwardWatch
from bluefog_pg.torch.optimizers.part import Part


def watch_forward(optimizer: Any, part: Part) -> None:
    """Calls optimizer._before_forward(), and _after_forward(part, learns) after each pass.

    learns: whether the pass is one in training mode, with gradients.
    """
    me = weakref.ref(optimizer)

    def before(*_: Any) -> None:
        if target := me():
            target._before_forward()

    def after(model: nn.Module, *_: Any) -> None:
        if target := me():
            target._after_forward(part, model.training and torch.is_grad_enabled())

    for hook in (
        part.model.register_forward_pre_hook(before),
        part.model.register_forward_hook(after),
    ):
        weakref.finalize(optimizer, hook.remove)


def watch_backward(optimizer: Any, part: Part) -> None:
    """Calls optimizer._after_backward(part) once a backward pass has given it gradients."""
    me = weakref.ref(optimizer)

    def ended() -> None:
        if target := me():
            target._after_backward(part)

    watch = BackwardWatch(ended, lambda _: None)
    watch.watch(part.parameters)
    hook = part.model.register_forward_hook(lambda *args: watch.watch_outputs(args[-1]))
    weakref.finalize(optimizer, hook.remove)
    weakref.finalize(optimizer, watch.watch, [])
