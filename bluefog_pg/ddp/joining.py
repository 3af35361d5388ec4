"""Ranks that run out of data before others do (`torch.distributed.algorithms.join`)."""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join, Joinable, JoinHook

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.ddp.cycle import Cycle


class Joining(Joinable):
    """The part of DecentralizedDataParallel that lets ranks make different numbers of steps."""

    _cycle: Cycle
    _device: torch.device
    algorithm: Algorithm
    process_group: Any

    def __init__(self) -> None:
        super().__init__()
        self._notice: Any = None

    def join(
        self,
        divide_by_initial_world_size: bool = True,
        enable: bool = True,
        throw_on_early_termination: bool = False,
    ) -> Join:
        """Ranks may leave this context after different numbers of steps: ``with model.join():``.

        A rank that leaves goes on to average its parameters until all have left; its gradient
        counts as 0, and it takes no optimizer step. For several models: ``with Join([a, b]):`` of
        torch.distributed.algorithms.join. Each step costs a small all-reduce. With an asynchronous
        algorithm it costs nothing, and a rank that leaves just waits.

        Raises:
            ValueError: divide_by_initial_world_size=False: gradients are not divided.
        """
        if not divide_by_initial_world_size:
            raise ValueError(
                "DecentralizedDataParallel cannot honour divide_by_initial_world_size=False: "
                "parameters are averaged, and gradients are not divided by anything"
            )
        return Join([self], enable, throw_on_early_termination)

    def join_hook(self, **_: Any) -> JoinHook:
        """For torch.distributed.algorithms.join.Join."""
        return _ServingHook(self)

    @property
    def join_device(self) -> torch.device:
        return self._device

    @property
    def join_process_group(self) -> Any:
        return dist.group.WORLD if self.process_group is None else self.process_group

    def _tell_those_without_data(self) -> None:
        """Before a step's first exchange: those who have left the context are to serve one more."""
        if self.algorithm.asynchronous:
            return
        if self._notice is not None:
            self._notice.wait()
        self._notice = Join.notify_join_context(self)


class _ServingHook(JoinHook):
    """What a rank without data does until no rank has any: steps with gradients of 0."""

    def __init__(self, model: Joining) -> None:
        self._model = model

    def main_hook(self) -> None:
        """Called once per step of the ranks that have data."""
        self._model._cycle.step_without_data()

    def post_hook(self, is_last_joiner: bool) -> None:
        """Called once no rank has data. Join itself would leave its all-reduce per step behind."""
        self._model._cycle.settle()
        Joining.__init__(self._model)
