"""Tells when a backward pass is over."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch


class BackwardWatch:
    """Calls back when parameters get gradients, and at the end of each backward() where one does.

    Outputs are watched too, because backward reaches them first: a parameter may get its gradient
    in a backward() within backward(), as reentrant activation checkpointing makes them, and the end
    of that one is too early. Of torch.autograd.grad(), which gives no parameter a gradient, nothing
    is told.
    """

    def __init__(self, ended: Callable[[], None], arrived: Callable[[torch.Tensor], None]) -> None:
        """arrived: called with a parameter to whose gradient a backward pass has added."""
        self._ended, self._arrived = ended, arrived
        self._hooks: list[Any] = []
        self.begin()

    def watch(self, parameters: Iterable[torch.Tensor]) -> None:
        """Replaces the parameters that are watched."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = [p.register_post_accumulate_grad_hook(self._on_gradient) for p in parameters]

    def watch_outputs(self, outputs: Any) -> None:
        """Watches the tensors in what the module has returned, as long as these live."""
        for tensor in tensors_in(outputs):
            if tensor.grad_fn is not None:
                tensor.register_hook(self._on_output)

    def begin(self) -> None:
        """Forgets a backward pass that has failed half-way."""
        self._called = self._any_gradient = False

    def _on_output(self, _: torch.Tensor) -> None:
        if not self._called:
            self._called = True
            torch.autograd.Variable._execution_engine.queue_callback(self._on_end)

    def _on_gradient(self, parameter: torch.Tensor) -> None:
        self._any_gradient = True
        self._on_output(parameter)  # outputs in a class of the user's own are not found
        self._arrived(parameter)

    def _on_end(self) -> None:
        any_gradient = self._any_gradient
        self.begin()
        if any_gradient:
            self._ended()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Gives the tensors in a value of nested lists, tuples, mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, f.name) for f in dataclasses.fields(value)])
