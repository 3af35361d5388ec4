import torch

from bluefog_pg.algorithms.local_steps import OuterSteps
from bluefog_pg.algorithms.options import check_momentum, check_rate
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("noloco")
class NoLoCo(OuterSteps):
    """NoLoCo: outer steps as in DiLoCo, averaged with one random other rank (arXiv:2506.10911).

    x = x0 after H local steps;  m' = momentum m + outer_lr (W (x - x0) - (x0 - W x0));
    x0' = x0 + m';  m0 = 0, W the round's random pairs

    The last two terms make W x - x0, so there is one message per round. The paper has a factor of
    its own for x0 - W x0, which pulls ranks together; as in the authors' code it is outer_lr.
    Other topologies than pairs do as well. Any optimizer; it keeps its state. Memory: x0, m and the
    average, each as large as x.

    Args:
        every: H, 1 or more.
        momentum: of the outer steps, in [0, 1).
        outer_lr: of the outer steps, above 0.
    """

    kept = ("x0", "m")
    default_topology = "random_matching"
    messages, allreduces = 1, 0
    keeps_dtype = None
    over = buffers_over = "W"

    def __init__(self, every: int = 50, momentum: float = 0.5, outer_lr: float = 0.7) -> None:
        super().__init__(every)
        self.momentum = check_momentum("momentum", momentum)
        self.outer_lr = check_rate("outer_lr", outer_lr)

    def close_round(self, block: Block) -> None:
        x, x0, m = block["x"], block["x0"], block["m"]
        m.mul_(self.momentum).add_(x.sub_(x0), alpha=self.outer_lr)
        torch.add(x0, m, out=x)
        block.touch()
