from collections.abc import Callable

import torch

from bluefog_pg.algorithms.local_steps import OuterSteps
from bluefog_pg.algorithms.options import check_momentum, check_rate
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("slowmo")
class SlowMo(OuterSteps):
    """SlowMo: momentum over rounds of local steps (arXiv:1910.00643).

    x = x0 after H local steps;  u' = momentum u + (x0 - mean(x)) / fast_lr;
    x0' = x0 - slow_lr fast_lr u';  u0 = 0, the mean over all ranks, by allreduce

    No topology. With slow_lr = 1 and momentum = 0 it is local SGD. Any optimizer; it keeps its own
    state ("maintain" in the paper). Memory: x0, u and the average, each as large as x.

    Args:
        every: H, 1 or more.
        momentum: in [0, 1).
        slow_lr: the slow learning rate, above 0.
        fast_lr: returns the optimizer's learning rate of now, such as
            ``lambda: optimizer.param_groups[0]["lr"]``; equal on all ranks. It matters only where
            that changes, so the default is 1 (block momentum, BMUF).
    """

    kept = ("x0", "u")

    def __init__(
        self,
        every: int = 48,
        momentum: float = 0.5,
        slow_lr: float = 1.0,
        fast_lr: Callable[[], float] = lambda: 1.0,
    ) -> None:
        super().__init__(every)
        self.momentum = check_momentum("momentum", momentum)
        self.slow_lr = check_rate("slow_lr", slow_lr)
        self.fast_lr = fast_lr

    def after_step(self, block: Block) -> None:
        # Now: a scheduler may change it before the round is closed.
        if self.communicates(block.network.step):
            self._fast_lr = check_rate("the result of fast_lr()", self.fast_lr())
        super().after_step(block)

    def close_round(self, block: Block) -> None:
        x, x0, u = block["x"], block["x0"], block["u"]
        torch.sub(x0, x, out=x)
        u.mul_(self.momentum).add_(x, alpha=1 / self._fast_lr)
        torch.sub(x0, u, alpha=self.slow_lr * self._fast_lr, out=x)
        block.touch()
