"""The three kinds: what they do after a forward pass, after a backward pass, and in step()."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from bluefog_pg.torch.optimizers.base import Closure, Distributed
from bluefog_pg.torch.optimizers.communication import CommunicationType
from bluefog_pg.torch.optimizers.moments import watch_backward
from bluefog_pg.torch.optimizers.part import Part

StepFunction = Callable[[Any, nn.Parameter, torch.Tensor, dict[str, Any]], None]


class AdaptWithCombine(Distributed):
    """x_i' = sum_j w_ij x_j - lr d(g_i(x_i)), d the update of the user's optimizer.

    Parameters start on their way at the end of the forward pass, and are there in step(): backward
    runs meanwhile.
    """

    def step(self, closure: Closure = None) -> Any:
        """Puts the averages in place, then steps the user's optimizer."""
        loss = self._run(closure)
        if self._synchronizes:
            self.synchronize()
        super().step()
        return loss

    def _after_forward(self, part: Part, learns: bool) -> None:
        super()._after_forward(part, learns)
        if learns and part.count():
            self._start(part)
            if not part.is_under_way:  # CommunicationType.empty
                part.restart()


class AfterBackward(Distributed):
    """Counts backward passes."""

    def _begin(self, models: Sequence[nn.Module], over: CommunicationType, every: int) -> None:
        super()._begin(models, over, every)
        for part in self._parts:
            watch_backward(self, part)

    def _after_backward(self, part: Part) -> None:
        part.count()

    def _due(self) -> list[Part]:
        """Returns the parts that have had their passes, and lets them count anew."""
        due = [part for part in self._parts if part.is_due]
        for part in due:
            part.restart()
        return due


class AdaptThenCombine(AfterBackward):
    """x_i' = sum_j w_ij (x_j - lr d(g_j(x_j))), d the update of the user's optimizer."""

    _step_function: StepFunction | None = None

    def register_step_function(self, step_function: StepFunction) -> None:
        """Lets step_function(self, parameter, gradient, param_group) step each parameter.

        Not needed for any optimizer here: the user's own step() works for all of them.
        """
        self._step_function = step_function

    def step(self, closure: Closure = None) -> Any:
        """Steps the user's optimizer, then averages the parameters."""
        loss = self._run(closure)
        self._adapt()
        if not self._synchronizes:
            return loss
        for part in self._due():
            self._start(part)
        for part in self._parts:
            part.finish()
        return loss

    def _adapt(self) -> None:
        if self._step_function is None:
            super().step()
            return
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._step_function(self, parameter, parameter.grad, group)


class GradientAllreduce(AfterBackward):
    """x_i' = x_i - lr d(mean over j of g_j(x_j)), d the update of the user's optimizer.

    The mean replaces the gradients before the last backward() returns, so they can be clipped.
    """

    def step(self, closure: Closure = None) -> Any:
        """Steps the user's optimizer."""
        loss = self._run(closure)
        self._due()
        super().step()
        return loss

    def _after_backward(self, part: Part) -> None:
        if part.count():
            part.average_gradients()
