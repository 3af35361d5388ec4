import torch

from bluefog_pg.algorithms.momentum import Momentum
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("qg_dsgdm")
class QGDSGDm(Momentum):
    """QG-DSGDm, quasi-global momentum (arXiv:2102.04761).

    x' = W (x - lr (momentum m + g(x)));  m' = momentum m + (1 - momentum) (x - x') / lr

    x - lr g(x) is what the optimizer leaves, and lr that of each parameter's group in this step.
    Where lr is 0, m' = momentum m.

    The bias on heterogeneous data is that of `atc` with the same lr, without momentum. The exchange
    runs from optimizer.step() to the next use of the parameters.
    """

    kept = ("m",)
    memory = 2
    needs_learning_rates = True

    def before_step(self, block: Block) -> None:
        block.arrived("x").copy_(block["x"])

    def after_step(self, block: Block) -> None:
        variables = (block.views("x"), block.views("m"), block.cut(block.arrived("x")))
        for x, m, x_old, lr in zip(*variables, block.learning_rates, strict=True):
            x.sub_(m, alpha=lr * self.momentum)
            m.mul_(self.momentum)
            self._add_move(m, x_old.sub_(x), lr)
        block.touch()
        block.start("x")

    def combine(self, block: Block) -> None:
        block.finish()
        shifts = block.cut(block.shift("x").neg_())
        for m, shift, lr in zip(block.views("m"), shifts, block.learning_rates, strict=True):
            self._add_move(m, shift, lr)

    def skip(self, block: Block) -> None:
        block.start("x")

    def _add_move(self, m: torch.Tensor, move: torch.Tensor, lr: float) -> None:
        """x - x' is the sum of two moves, one before and one in the average."""
        if lr:
            m.add_(move, alpha=(1 - self.momentum) / lr)
