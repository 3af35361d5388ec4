from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("extra")
class EXTRA(Algorithm):
    """EXTRA, adapt while communicate (`awc`) without its bias (arXiv:1404.6264).

    x1 = W x0 - lr g(x0);
    x' = x + W x - (x_old + W x_old) / 2 - lr (g(x) - g(x_old))

    which is x' = W x + c - lr g(x) with c' = c + (W x - x) / 2, 0 at first. In this form a change
    of the learning rate leaves no trace in the mean of x.

    The exchange of x runs during forward and backward. Exact on heterogeneous data, with one
    message; W static and symmetric. Theory is for SGD with a constant learning rate, which must be
    smaller than `exact_diffusion` allows.
    """

    kept = ("c",)
    memory = 2
    default_topology = "symmetric_exponential"

    def before_forward(self, block: Block) -> None:
        block.start("x")

    def after_backward(self, block: Block) -> None:
        block.finish()
        shift = block.shift("x")
        block["x"].add_(block["c"])
        block.touch()
        block["c"].add_(shift, alpha=0.5)
