from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("gossipgrad")
class GossipGraD(Algorithm):
    """GossipGraD: gradients are averaged, with another partner in each step (arXiv:1803.05880).

    x' = x - lr W g(x)

    Nothing pulls the ranks' parameters together: it is for data that is dealt out at random, and
    better still passed on among ranks, as the paper does. On heterogeneous data each rank ends near
    its own optimum. The exchange is waited for before optimizer.step(). Any optimizer.
    """

    exchanged = ("g",)  # nothing else: parameters' `grad` lies in it, and x is not sent
    memory = 2
    needs_optimizer = True
    default_topology = "dissemination"

    def before_step(self, block: Block) -> None:
        block.read_gradient("g")
        block.mix("g")
        block.use_as_gradient("g")

    def after_step(self, block: Block) -> None:
        pass

    def skip(self, block: Block) -> None:
        block["g"].zero_()
        block.mix("g")
