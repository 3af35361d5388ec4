import torch

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.gradient_tracking import GradientTracking
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology
from bluefog_pg.topology import column_stochastic, rounds, row_stochastic
from bluefog_pg.topology.weights import has_weights


class _Push(Algorithm):
    """Parameters are z = x / w between steps, and x inside of optimizer.step()."""

    needs_optimizer = True
    keeps_dtype = (
        "rounding would change the sum over the ranks, which column-stochastic weights keep"
    )
    buffers_over = "R"

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        given = any(has_weights(graph) for graph in rounds(topology))
        c = topology if given else column_stochastic(topology)
        return {"W": c, "R": row_stochastic(topology)}

    def begin(self, block: Block) -> None:
        block.add_scalars("w", 1.0)

    def before_step(self, block: Block) -> None:
        torch._foreach_mul_(block.views("x"), block.scalars("w"))
        block.touch()
        block.converted = True

    def after_step(self, block: Block) -> None:
        block.start("x", "w")

    def combine(self, block: Block) -> None:
        block.finish()
        self._to_z(block)

    def skip(self, block: Block) -> None:
        _Push.before_step(self, block)
        self.after_step(block)

    def abandon(self, block: Block) -> None:
        if block.converted:
            self._to_z(block)

    def _to_z(self, block: Block) -> None:
        torch._foreach_div_(block.views("x"), block.scalars("w"))
        block.touch()
        block.converted = False


@register("push_sum")
class PushSum(_Push):
    """Stochastic gradient push, SGP, for directed graphs (arXiv:1811.10792).

    x' = C (x - lr g(z));  w' = C w;  z' = x' / w';  w0 = 1

    C keeps the sum of all x: the weights given to a rank's x, its own included, sum to 1. A graph
    without weights gets 1 / (out-degree + 1), for which ranks need to know whom they send to and
    nothing of the others; weights that it has must fit. Biased like `atc`, which it is where C is
    doubly stochastic.

    The parameters are z, except inside of optimizer.step(), which updates x: weight decay is on x,
    and norms of parameters are those of x. The exchange runs from there to the next use of the
    parameters. In half precision z is rounded twice more than with `atc`. Any optimizer.
    """


@register("push_diging")
class PushDIGing(_Push, GradientTracking):
    """Push-DIGing, adapt then combine: gradient tracking on directed graphs (arXiv:1607.03218).

    u' = C (u - lr y);  w' = C w;  x' = u' / w';  y' = C (y + g(x') - g(x));
    u0 = x0;  w0 = 1;  y0 = g(x0)

    C is that of `push_sum`; as z there, x is what the parameters are except inside of
    optimizer.step(), which updates u. Exact on heterogeneous data. Theory is for SGD; another
    optimizer gets y as its gradient.
    """

    def before_step(self, block: Block) -> None:
        GradientTracking.before_step(self, block)
        super().before_step(block)
