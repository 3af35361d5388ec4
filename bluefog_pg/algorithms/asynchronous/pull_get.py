from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("pull_get")
class PullGet(Windowed):
    """Asynchronous D-PSGD by get: averages with what neighbours have last shown (arXiv:2111.04287).

    x' = w_ii x + sum_j w_ij x_j - lr g(x);  x_j as neighbour j left it at the end of its last step

    BlueFog's DistributedPullGetOptimizer. Only the rank that averages does anything, right before
    optimizer.step(), so it takes the newest values there are, and does not hide the time for
    reading them. As with `win_put` the mean is not kept. Any optimizer.
    """

    readable = True
    memory = "4 d + 3"

    def before_step(self, block: Block) -> None:
        sources = [rank for rank in block.window.in_neighbors if not self._is_lost(block, rank)]
        for rank in sources:
            self._reach(self._get, rank, block)
        self._sent(block, 0)
        self._average(block)

    def before_skip(self, block: Block) -> None:
        self.before_step(block)

    def after_step(self, block: Block) -> None:
        block.window.update(self_weight=1.0, neighbor_weights={})  # shows x to the neighbours

    def settled(self, block: Block) -> None:
        self.after_step(block)  # the program may have changed it

    def _get(self, rank: int, block: Block) -> None:
        block.window.get(src_weights={rank: 1.0})
