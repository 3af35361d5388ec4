import torch

from bluefog_pg.algorithms.local_steps import OuterSteps
from bluefog_pg.algorithms.options import check_momentum, check_rate
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("gasloc")
class GASLoC(OuterSteps):
    """GASLoC: outer steps as in DiLoCo, averaged with neighbors over a graph (arXiv:2606.11081).

    x = x0 after H local steps;  v' = x0 + outer_lr (x - x0);
    x0' = W v' + momentum (v' - v);  v0 = x0

    W is I minus the paper's gossip step size times its Laplacian. The mean of x0 over the ranks
    moves as in DiLoCo; with outer_lr = 1 and momentum = 0 it is local SGD over a graph. Any
    optimizer; it keeps its state. Memory: x0, v and the average, each as large as x.

    Args:
        every: H, 1 or more.
        momentum: in [0, 1).
        outer_lr: of the outer steps, above 0.
    """

    kept = ("x0", "v")
    messages, allreduces = 1, 0
    keeps_dtype = None
    over = buffers_over = "W"

    def __init__(self, every: int = 100, momentum: float = 0.9, outer_lr: float = 0.7) -> None:
        super().__init__(every)
        self.momentum = check_momentum("momentum", momentum)
        self.outer_lr = check_rate("outer_lr", outer_lr)

    def begin(self, block: Block) -> None:
        super().begin(block)
        block["v"].copy_(block["x"])

    def after_step(self, block: Block) -> None:
        if self.communicates(block.network.step):
            torch.lerp(block["x0"], block["x"], self.outer_lr, out=block["x"])
            block.touch()
        super().after_step(block)

    def close_round(self, block: Block) -> None:
        x, v_old, v = block["x"], block["v"], block.arrived("x")
        x.sub_(v_old, alpha=self.momentum).add_(v, alpha=self.momentum)
        v_old.copy_(v)
        block.touch()
