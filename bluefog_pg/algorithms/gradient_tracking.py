from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


class _Tracking(Algorithm):
    """y follows the mean gradient, since the sum of y over all ranks stays that of g."""

    exchanged = ("y",)
    kept = ("g",)
    memory = 5
    messages = 2
    needs_optimizer = True
    lazy = True

    def track(self, block: Block) -> None:
        """y <- y + g - g_old"""
        g = block.gradient()
        block["y"].add_(g).sub_(block["g"])
        block["g"].copy_(g)


@register("gradient_tracking")
class GradientTracking(_Tracking):
    """Gradient tracking, adapt then combine (Aug-DGM; on finite-time graphs arXiv:2311.01317).

    x' = W (x - lr y);  y' = W (y + g(x') - g(x));  y0 = g(x0)

    Exact on heterogeneous data, also over directed and changing graphs that are doubly stochastic.
    The second message is waited for before optimizer.step(); `semi_atc_tracking` and `diging` send
    both as one. Theory is for SGD; another optimizer gets y as its gradient.
    """

    def before_step(self, block: Block) -> None:
        self.track(block)
        self._mix_tracker(block)
        block.set_gradient(block["y"])

    def after_step(self, block: Block) -> None:
        block.start("x")

    def combine(self, block: Block) -> None:
        block.finish()

    def before_skip(self, block: Block) -> None:
        self._mix_tracker(block)

    def _mix_tracker(self, block: Block) -> None:
        if block.network.step > 0:  # y0 = g(x0)
            block.mix("y", steps_ago=1)  # over the graph that x has just gone over


@register("semi_atc_tracking")
class SemiATCTracking(_Tracking):
    """Gradient tracking, both variables in one message after the step (arXiv:2110.09993).

    x' = W (x - lr y);  y' = W y + g(x') - g(x)

    As `gradient_tracking`, but nothing is waited for between backward() and optimizer.step().
    """

    def before_step(self, block: Block) -> None:
        self.track(block)
        block.set_gradient(block["y"])

    def after_step(self, block: Block) -> None:
        block.start("x", "y")

    def combine(self, block: Block) -> None:
        block.finish()


@register("diging")
class DIGing(_Tracking):
    """Gradient tracking, adapt while communicate (DIGing, arXiv:1607.03218).

    x' = W x - lr y;  y' = W y + g(x') - g(x)

    Both variables go as one message during forward and backward, so where W changes, the one that
    averages y is that of the next step. Smaller learning rates than `gradient_tracking`.
    """

    def before_forward(self, block: Block) -> None:
        block.start("x", "y")

    def after_backward(self, block: Block) -> None:
        block.finish()

    def before_step(self, block: Block) -> None:
        self.track(block)
        block.set_gradient(block["y"])
