"""Scaled gradients, with one decision of all ranks whether a step is taken."""

from typing import Any

import torch
import torch.distributed as dist


class GradScaler(torch.amp.GradScaler):
    """torch.amp.GradScaler for float16 training: where one rank meets inf, all skip the step.

    Found infinities are reduced by MAX over the group (as FSDP's ShardedGradScaler does), once per
    step and optimizer, so the scale stays equal on all ranks too. torch's own scaler works as well
    and lets each rank decide alone: one that skips averages its parameters all the same, at its
    next forward pass or `settle()`. Use that one in join(): ranks without data take no decisions.

    Args:
        device: where the gradients are; default "cpu".
        process_group: whose ranks decide together; default: the world.
        options: init_scale, growth_factor, ..., enabled, as torch.amp.GradScaler has them.
    """

    def __init__(self, device: str = "cpu", process_group: Any = None, **options: Any) -> None:
        super().__init__(device, **options)
        self.process_group = process_group

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, *args: Any
    ) -> dict[torch.device, torch.Tensor]:
        """Where torch looks at gradients, whether the optimizer unscales them itself or not."""
        found = super()._unscale_grads_(optimizer, *args)
        device = torch.device(self._device)
        here = found.setdefault(device, torch.zeros((), device=device))  # of a rank without any
        worst = torch.stack([value.to(device) for value in found.values()]).max()
        dist.all_reduce(worst, dist.ReduceOp.MAX, group=self.process_group)
        here.copy_(worst)
        return found
