from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("awc")
class AWC(Algorithm):
    """D-PSGD, adapt while communicate (arXiv:1705.09056).

    x' = W x - lr g(x)

    The exchange of x runs during forward and backward. Any optimizer: its update is d(g(x)).
    """

    def before_forward(self, block: Block) -> None:
        block.start("x")

    def after_backward(self, block: Block) -> None:
        block.finish()
