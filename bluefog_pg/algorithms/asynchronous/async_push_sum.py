from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("async_push_sum")
class AsyncPushSum(Windowed):
    """Asynchronous stochastic gradient push (arXiv:1811.10792, arXiv:2111.04287).

    u = w z - lr g(z);  (u, w)' = (u, w) / (1 + d) + all (u_j, w_j) / (1 + d_j) that have come;
    z' = u' / w';  w0 = 1

    After its step a rank with d out-neighbours keeps 1 / (1 + d) of u and w, sends as much to each
    of them, and adds what has come meanwhile, from as many steps as the neighbours have made. What
    is under way counts: the sums of all u and w stay what they are, however late or rarely a rank
    looks into its mailboxes, so the mean is kept on any strongly connected directed graph. A
    neighbour's contributions add up in its mailbox until they are taken: none is lost or counted
    twice. The parameters are z. Any optimizer: its update is of u with w z for z.
    """

    mailboxes_are_part_of_x = True

    def begin(self, block: Block) -> None:
        super().begin(block)
        block.window.carry_p(True)
        block.add_scalars("w", 1.0)

    def after_step(self, block: Block) -> None:
        self._to_u(block)
        ranks = self._destinations(block)
        share = 1 / (1 + len(ranks))
        sent = [self._reach(self._push, rank, block, share) for rank in ranks]
        copies = sum(map(bool, sent))
        self._sent(block, copies)
        kept = 1 - copies * share  # also of those that turned out to be lost
        block["x"].mul_(kept)
        block.window.p *= kept
        self._collect(block)

    def _collect(self, block: Block) -> None:
        block.window.update_then_collect(require_mutex=False)
        block["x"].div_(block.window.p)
        block.touch()
        for view in block.views("w"):
            view.fill_(block.window.p)

    def settled(self, block: Block) -> None:
        self._to_u(block)
        self._collect(block)

    def _to_u(self, block: Block) -> None:
        """The weights may have come from a saved state, and each from another block."""
        weights = block.scalars("w")
        block.window.p = sum(weights) / len(weights)
        block["x"].mul_(block.window.p)

    def _push(self, rank: int, block: Block, share: float) -> None:
        block.window.accumulate(dst_weights={rank: share})
