from bluefog_pg.algorithms.gradient_tracking import SemiATCTracking
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology
from bluefog_pg.topology import column_stochastic


@register("push_pull")
class PushPull(SemiATCTracking):
    """Push-Pull, also called AB: gradient tracking on directed graphs (arXiv:1810.06653).

    x' = R (x - lr y);  y' = C y + g(x') - g(x);  y0 = g(x0)

    R averages: the weights that a rank applies sum to 1. They are the topology's. C, on the same
    edges, keeps the sum: the weights given to a rank's y sum to 1. Where R's weights don't do that
    too, C's are 1 / (out-degree + 1). Exact on heterogeneous data.

    x and y go as two messages at a time, from optimizer.step() to the next use of the parameters.
    Theory is for SGD; another optimizer gets y as its gradient.
    """

    keeps_dtype = (
        "rounding would change the sum over the ranks, which column-stochastic weights keep"
    )

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        return {"W": topology, "C": column_stochastic(topology)}

    def after_step(self, block: Block) -> None:
        block.start("x")
        block.start("y", over="C")
