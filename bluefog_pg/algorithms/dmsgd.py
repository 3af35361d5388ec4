from bluefog_pg.algorithms.momentum import Momentum
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("dmsgd")
class DmSGD(Momentum):
    """DmSGD, local momentum (arXiv:1905.03817, with an average in every step).

    m' = momentum m + g(x);  x' = W (x - lr m')

    The same as `atc` with SGD(momentum=...). Its bias on heterogeneous data is 1 / (1 - momentum)
    times that of `decentlam` and `qg_dsgdm`. The optimizer gets m' as its gradient, so
    that weight decay of its own is not part of m.
    """

    kept = ("m",)
    memory = 3
    lazy = True

    def before_step(self, block: Block) -> None:
        m = block["m"].mul_(self.momentum).add_(block.gradient())
        block.set_gradient(m)

    def after_step(self, block: Block) -> None:
        block.start("x")

    def combine(self, block: Block) -> None:
        block.finish()


@register("dmsgd_mixed")
class DmSGDMixed(DmSGD):
    """DmSGD that averages the momentum too, in the same message (arXiv:2110.13363).

    m = momentum m + g(x);  x' = W (x - lr m);  m' = W m

    Less biased than `dmsgd`, for twice the bytes.
    """

    exchanged = ("m",)
    kept = ()
    memory = 4
    messages = 2

    def after_step(self, block: Block) -> None:
        block.start("x", "m")
