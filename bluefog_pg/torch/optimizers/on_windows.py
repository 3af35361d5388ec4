"""Optimizers whose ranks do not wait for each other: algorithms over windows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bluefog_pg.algorithms.asynchronous.win_put import WinPut
from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.blocks.network import Network
from bluefog_pg.topology import union
from bluefog_pg.torch.context import current
from bluefog_pg.torch.optimizers.base import Closure, Distributed
from bluefog_pg.torch.optimizers.communication import CommunicationType
from bluefog_pg.torch.optimizers.part import Part, parameters_of


class OnWindows(Distributed):
    """Tells an algorithm of `bluefog_pg.algorithms.asynchronous` the moments of a step.

    dst_weights: {rank: weight} for what DistributedWinPutOptimizer puts; default: 1 for each
        out-neighbour. The others, and other weights, are refused: the topology has theirs.
    force_barrier: all ranks meet in each step(), which makes the result reproducible.
    """

    _algorithm: Windowed
    force_barrier = False

    def _begin(self, models: Sequence[nn.Module], over: CommunicationType, every: int) -> None:
        super()._begin(models, over, every)
        for part in self._parts:
            with torch.no_grad():
                for block in part.blocks:
                    self._algorithm.begin(block)

    def _make_part(self, model: nn.Module, every: int) -> Part:
        context = current()
        assert context.topology is not None
        network = Network(
            context.topology.used(), lambda graph: {"W": union(graph)}, context.backend
        )
        return Part(model, parameters_of(model, self), network, every)

    def unregister_window(self) -> None:
        """Frees the windows; the optimizer cannot be used after that. Collective."""
        for part in self._parts:
            for block in part.blocks:
                block.window.free()

    def step(self, closure: Closure = None) -> Any:
        """Averages with what has come, steps the user's optimizer, and sends what there is."""
        loss = self._run(closure)
        due = [part for part in self._parts if part.is_due]
        self._tell(self._algorithm.before_step, due)
        super().step()
        self._tell(self._algorithm.after_step, due)
        for part in due:
            part.restart()
        if self.force_barrier:
            current().backend.barrier().wait()
        return loss

    def _after_forward(self, part: Part, learns: bool) -> None:
        super()._after_forward(part, learns)
        if learns and part.count():
            self._check_memory(part)
            self._use_weights()
            self._tell(self._algorithm.before_forward, [part])

    def _use_weights(self) -> None:
        algorithm = self._algorithm
        names = ["self_weight", "src_weights", "src_machine_weights", "dst_machine_weights"]
        for name in names if isinstance(algorithm, WinPut) else [*names, "dst_weights"]:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} has no effect on {algorithm.name}, which averages by the "
                    "topology's weights; leave it None"
                )
        if isinstance(algorithm, WinPut):
            given = self.dst_weights
            is_list = given is not None and not isinstance(given, Mapping)
            algorithm.dst_weights = dict.fromkeys(given, 1.0) if is_list else given

    @torch.no_grad()
    def _tell(self, moment: Any, parts: Sequence[Part]) -> None:
        for part in parts:
            for block in part.blocks:
                moment(block)

    def _check_memory(self, part: Part) -> None:
        if not all(block.is_current() for block in part.blocks):
            raise RuntimeError(
                "parameters have other memory than when the optimizer was made (module.to(), "
                "load_state_dict(assign=True)); make it after that"
            )
