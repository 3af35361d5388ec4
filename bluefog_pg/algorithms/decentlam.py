import torch

from bluefog_pg.algorithms.momentum import Momentum
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("decentlam")
class DecentLaM(Momentum):
    """DecentLaM, momentum without its bias (arXiv:2104.11981).

    d = (x - W (x - lr g(x))) / lr;  m' = momentum m + d;  x' = x - lr m'

    which is x' = W (x - lr g(x)) - lr momentum m with m' = (x - x') / lr. x - lr g(x) is what the
    optimizer leaves, and lr that of each parameter's group in this step. Where lr is 0, m stays.

    W static and symmetric: with a directed or a changing one m never settles, and x diverges.

    The bias on heterogeneous data is that of `atc` with the same lr, without momentum. The exchange
    runs from optimizer.step() to the next use of the parameters, for which x is kept beside m.
    """

    kept = ("m", "x_old")
    default_topology = "symmetric_exponential"
    memory = 3
    needs_learning_rates = True

    def before_step(self, block: Block) -> None:
        block["x_old"].copy_(block["x"])

    def after_step(self, block: Block) -> None:
        block.start("x")

    def combine(self, block: Block) -> None:
        block.finish()
        variables = (block.views(name) for name in ("x", "m", "x_old"))
        for x, m, x_old, lr in zip(*variables, block.learning_rates, strict=True):
            if lr:
                x.sub_(m, alpha=lr * self.momentum)
                torch.sub(x_old, x, out=m).div_(lr)
        block.touch()
