from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("atc")
class ATC(Algorithm):
    """Diffusion, adapt then combine (arXiv:1205.4220).

    x' = W (x - lr g(x))

    Stable for learning rates about twice as large as AWC's, and less biased. The exchange runs from
    optimizer.step() to the next use of the parameters. Any optimizer.

    The last exchange to be posted is the one that the next forward pass needs first. With
    `awc_blocks`, that many blocks, those of the first layers, go by x' = W x - lr g(x) instead
    (`AWC`): their exchange runs during forward and backward. Both are averages of the same kind on
    different parts of x; learning rates must be small enough for AWC then.
    """

    lazy = True

    def __init__(self, awc_blocks: int = 0) -> None:
        """
        Raises:
            ValueError: `awc_blocks` is not a whole number from 0 on.
        """
        if type(awc_blocks) is not int or awc_blocks < 0:
            raise ValueError(f"awc_blocks is a number of blocks, 0 or more, got {awc_blocks!r}")
        self.awc_blocks = awc_blocks

    def before_forward(self, block: Block) -> None:
        if self._is_awc(block):
            block.start("x")

    def after_backward(self, block: Block) -> None:
        if self._is_awc(block):
            block.finish()

    def after_step(self, block: Block) -> None:
        if not self._is_awc(block):
            block.start("x")

    def combine(self, block: Block) -> None:
        block.finish()

    def _is_awc(self, block: Block) -> bool:
        return block.index < self.awc_blocks
