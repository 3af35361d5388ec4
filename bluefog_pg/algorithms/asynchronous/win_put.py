from collections.abc import Mapping

from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("win_put")
class WinPut(Windowed):
    """Asynchronous D-PSGD by put: averages with what has come so far (arXiv:2111.04287).

    x' = w_ii x + sum_j w_ij m_j - lr g(x);  m_j = the x_j that neighbour j has put last

    BlueFog's DistributedWinPutOptimizer. Each forward pass begins with a put of x to the
    out-neighbours; averages are taken right before optimizer.step(). Fast ranks pull more often
    than slow ones, so the mean is not kept: x settles near a minimum that weighs fast ranks more.
    Any optimizer.
    """

    dst_weights: Mapping[int, float] | None = None
    """Weights for what is put, by out-neighbour, others get nothing; default: 1 for each."""

    def before_forward(self, block: Block) -> None:
        weights = self.dst_weights
        if weights is None:
            weights = dict.fromkeys(block.window.out_neighbors, 1.0)
        to = [(rank, w) for rank, w in weights.items() if rank not in self._lost]
        reached = [self._reach(self._put, rank, block, w) for rank, w in to]
        self._sent(block, sum(map(bool, reached)))

    def before_step(self, block: Block) -> None:
        self._average(block)

    def before_skip(self, block: Block) -> None:
        self._average(block)

    def _put(self, rank: int, block: Block, weight: float) -> None:
        block.window.put(dst_weights={rank: weight})
