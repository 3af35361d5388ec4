"""What methods with local steps share: rounds of steps, closed by one average."""

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.network import ALL
from bluefog_pg.topology.arguments import check_int


class LocalSteps(Algorithm):
    """Rounds of `every` steps of the user's optimizer; only the last one of a round averages x.

    The average starts after that step and is waited for when parameters are used next. All ranks
    count steps alike, those that a GradScaler skips included. A schedule moves on by one graph per
    round, not per step.

    Args:
        every: H, the steps of a round, 1 or more.
    """

    lazy = True
    messages, allreduces = 0, 1
    keeps_dtype = "it averages over all ranks, by allreduce"
    over = buffers_over = ALL

    def __init__(self, every: int) -> None:
        self.every = check_int("every", every, 1)

    def communicates(self, step: int) -> bool:
        return (step + 1) % self.every == 0

    def round(self, step: int) -> int:
        return step // self.every

    def after_step(self, block: Block) -> None:
        if self.communicates(block.network.step):
            block.start("x", over=self.over)

    def combine(self, block: Block) -> None:
        if block.is_under_way:
            block.finish()
            self.close_round(block)

    def close_round(self, block: Block) -> None:
        """What it makes of ``block["x"]``, which is the average now."""


class OuterSteps(LocalSteps):
    """Local steps whose sum is taken for a gradient, of which an outer optimizer makes a step.

    x0 is where a round has begun.
    """

    lazy = False  # x0 is taken before the forward pass
    kept = ("x0",)
    memory = 3

    def begin(self, block: Block) -> None:
        block["x0"].copy_(block["x"])

    def before_forward(self, block: Block) -> None:
        if block.network.step % self.every == 0:
            block["x0"].copy_(block["x"])
