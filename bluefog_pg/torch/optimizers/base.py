"""What all of these optimizers have: knobs, synchronization, timeline activities."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bluefog_pg.topology.arguments import check_int
from bluefog_pg.torch.optimizers.communication import ByAttributes, CommunicationType
from bluefog_pg.torch.optimizers.moments import watch_forward
from bluefog_pg.torch.optimizers.part import Part, parameters_of
from bluefog_pg.torch.timeline import timeline_end_activity, timeline_start_activity

Closure = Callable[[], Any] | None


class Distributed:
    """Comes before the user's class among the bases of the class that `wrap` makes."""

    def _begin(self, models: Sequence[nn.Module], over: CommunicationType, every: int) -> None:
        self.communication_type = over
        self.self_weight: float | None = None
        self.src_weights: Any = None
        self.dst_weights: Any = None
        self.src_machine_weights: Any = None
        self.dst_machine_weights: Any = None
        self.enable_topo_check = False
        self._synchronizes = True
        self._has_timeline = False
        self._parts = [self._make_part(model, every) for model in models]
        for part in self._parts:
            watch_forward(self, part)

    def _make_part(self, model: nn.Module, every: int) -> Part:
        return Part(model, parameters_of(model, self), ByAttributes(self), every)

    def synchronize(self) -> None:
        """Waits for what is under way, and puts it in place; `step` does that otherwise."""
        for part in self._parts:
            if part.is_under_way:
                part.restart()
                part.finish()

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """A `step` inside does not wait for others: `synchronize` has been called by hand."""
        self._synchronizes = False
        try:
            yield
        finally:
            self._synchronizes = True

    def turn_on_timeline(self) -> bool:
        """Lets forward and gradient computation appear in the timeline. Returns True."""
        self._has_timeline = True
        return True

    def turn_off_timeline(self) -> bool:
        """Ends what `turn_on_timeline` began. Returns True."""
        self._has_timeline = False
        return True

    # ---- Moments

    def _before_forward(self) -> None:
        if self._has_timeline:
            timeline_start_activity("model", "FORWARD")

    def _after_forward(self, part: Part, learns: bool) -> None:
        """learns: a backward pass and a step may follow."""
        if self._has_timeline:
            timeline_end_activity("model")
            if learns:
                timeline_start_activity("model", "GRADIENT COMPT.")

    def _run(self, closure: Closure) -> Any:
        """Begins step(): calls the closure, if there is one, and returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._has_timeline:
            timeline_end_activity("model")
        return loss

    def _start(self, part: Part) -> None:
        over = self.communication_type
        if not isinstance(over, CommunicationType):
            raise ValueError(f"communication_type must be a CommunicationType, got {over!r}")
        if over is not CommunicationType.empty:
            part.start(over)


def wrap(
    kind: type[Distributed],
    optimizer: torch.optim.Optimizer,
    model: nn.Module | Sequence[nn.Module],
    over: CommunicationType,
    every: int,
) -> Any:
    """Returns an optimizer of class (kind, the user's class), with the user's groups and state.

    Raises:
        ValueError: `init` has not been called, the optimizer holds nothing of the model, is LBFGS,
            or every is below 1.
        TypeError: not a torch optimizer, or one that is wrapped already.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, Distributed):
        raise TypeError(f"give a plain torch optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS runs several passes within a step(), and cannot be distributed")
    every = check_int("num_steps_per_communication", every, 1)
    cls = type(type(optimizer).__name__, (kind, type(optimizer)), {})
    wrapped = cls.__new__(cls)
    # A learning rate scheduler has put a step() of its own into the object; it is of the old one.
    wrapped.__dict__.update({k: v for k, v in vars(optimizer).items() if k != "step"})
    models = [model] if isinstance(model, nn.Module) else [*model]
    wrapped._begin(models, over, every)
    return wrapped
