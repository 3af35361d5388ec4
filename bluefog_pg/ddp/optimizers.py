"""Tells when the user's optimizer steps, without being told which one it is."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class OptimizerWatch:
    """Calls back around ``step()`` of every torch optimizer that holds one of some parameters.

    before(optimizer)          before a step of such an optimizer
    after(optimizer, covered)  after it; covered: all of the parameters belong to optimizers that
                               have stepped since `forget_steps`

    Optimizers are found by their parameters, at their first step; one that is made later, or gets
    parameters later (`add_param_group`), is found then. The watch ends with its object.
    """

    def __init__(
        self,
        before: Callable[[torch.optim.Optimizer], None],
        after: Callable[[torch.optim.Optimizer, bool], None],
    ) -> None:
        self.seen_any = False
        self._before, self._after = weakref.WeakMethod(before), weakref.WeakMethod(after)
        self._watched: set[int] = set()
        self._stepped: set[int] = set()
        me = weakref.ref(self)
        for register, name in (
            (register_optimizer_step_pre_hook, "_on_before"),
            (register_optimizer_step_post_hook, "_on_after"),
        ):
            handle = register(_forward_to(me, name))
            weakref.finalize(self, handle.remove)

    def watch(self, parameters: Iterable[torch.Tensor]) -> None:
        """Replaces the parameters that are watched."""
        self._watched = {id(parameter) for parameter in parameters}
        self._stepped.clear()

    def forget_steps(self) -> None:
        """Starts a new round of steps."""
        self._stepped.clear()

    def _ours(self, optimizer: torch.optim.Optimizer) -> set[int]:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return held & self._watched

    def _on_before(self, optimizer: torch.optim.Optimizer) -> None:
        if self._ours(optimizer) and (call := self._before()):
            call(optimizer)

    def _on_after(self, optimizer: torch.optim.Optimizer) -> None:
        if (ours := self._ours(optimizer)) and (call := self._after()):
            self.seen_any = True
            self._stepped |= ours
            call(optimizer, self._stepped == self._watched)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    """Returns ``lr`` of the parameters whose groups have one, by the parameter's id()."""
    return {
        id(parameter): float(group["lr"])
        for group in optimizer.param_groups
        if "lr" in group
        for parameter in group["params"]
    }


def _forward_to(watch: "weakref.ref[OptimizerWatch]", name: str) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if target := watch():
            getattr(target, name)(optimizer)

    return hook
