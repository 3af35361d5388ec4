import torch

from bluefog_pg.algorithms.local_steps import OuterSteps
from bluefog_pg.algorithms.options import check_momentum, check_rate
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("diloco")
class DiLoCo(OuterSteps):
    """DiLoCo: Nesterov momentum over long rounds of local steps (arXiv:2311.08105).

    x = x0 after H local steps;  d = x0 - mean(x);  m' = momentum m + d;
    x0' = x0 - outer_lr (d + momentum m');  m0 = 0, the mean over all ranks, by allreduce

    No topology. With outer_lr = 1 and momentum = 0 it is local SGD. The optimizer is AdamW in the
    paper; any will do, and keeps its state. Memory: x0, m and the average, each as large as x.

    Args:
        every: H, 1 or more; about 100 to 500 in the paper.
        momentum: of the outer steps, in [0, 1).
        outer_lr: of the outer steps, above 0.
    """

    kept = ("x0", "m")

    def __init__(self, every: int = 100, momentum: float = 0.9, outer_lr: float = 0.7) -> None:
        super().__init__(every)
        self.momentum = check_momentum("momentum", momentum)
        self.outer_lr = check_rate("outer_lr", outer_lr)

    def close_round(self, block: Block) -> None:
        x, x0, m = block["x"], block["x0"], block["m"]
        d = torch.sub(x0, x, out=x)
        m.mul_(self.momentum).add_(d)
        torch.sub(x0, d.add_(m, alpha=self.momentum), alpha=self.outer_lr, out=x)
        block.touch()
