import torch

from bluefog_pg.algorithms.momentum import Momentum
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("momentum_tracking")
class MomentumTracking(Momentum):
    """Momentum Tracking, the momentum of `dmsgd` without bias (arXiv:2209.15505).

    u' = momentum u + g(x);  x' = W x - lr (u' - c);  c' = W (c - u') + u';
    u0 = c0 = (g(x0) - mean g(x0)) / (1 - momentum)

    which is `diging` for u in the place of g: x' = W x - lr y and y' = W y + u' - u, where y stands
    for u' - c and is mean g(x0) at first. That takes one exact average over all ranks.

    Both variables go as one message during forward and backward, so where W changes, the one that
    averages y is that of the next step. Exact on heterogeneous data, also
    over directed and changing graphs that are doubly stochastic. The optimizer gets y as gradient.
    """

    exchanged = ("y",)
    kept = ("u",)
    memory = 5
    messages = 2

    def before_forward(self, block: Block) -> None:
        block.start("x", "y")

    def after_backward(self, block: Block) -> None:
        block.finish()

    def before_step(self, block: Block) -> None:
        self._track(block, block.gradient())
        block.set_gradient(block["y"])

    def before_skip(self, block: Block) -> None:
        if block.network.step == 0:
            self._track(block, torch.zeros_like(block["x"]))

    def _track(self, block: Block, g: torch.Tensor) -> None:
        u, y = block["u"], block["y"]
        if block.network.step == 0:
            mean = block.network.all_reduce(block.arrived("y").copy_(g))
            torch.sub(g, mean, out=u).div_(1 - self.momentum)
        y.sub_(u)
        u.mul_(self.momentum).add_(g)
        y.add_(u)
