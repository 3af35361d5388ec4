import networkx as nx
import numpy as np
import torch

from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("async_push_sum")
class AsyncPushSum(Windowed):
    """Asynchronous stochastic gradient push, steps by weight (after arXiv:1811.10792, 2111.04287).

    u = w (z - lr g(z) / phi);  (u, w)' = (u, w) / (1 + d) + all (u_j, w_j) / (1 + d_j) that have
    come;  z' = u' / w';  w0 = 1

    After its step a rank with d out-neighbours keeps 1 / (1 + d) of u and w, sends as much to each
    of them, and adds what has come meanwhile, from as many steps as the neighbours have made. What
    is under way counts: the sums of all u and w stay what they are, however late or rarely a rank
    looks into its mailboxes, so the mean is kept on any strongly connected directed graph. A
    neighbour's contributions add up in its mailbox until they are taken: none is lost or counted
    twice. The parameters are z. Any optimizer: its update is of z.

    What the papers subtract from u is lr g(z). Among ranks of unequal speed that is unstable: the
    weight of a fast rank falls by 1 / (1 + d) in each step in which nothing comes, and u / w leaps.
    Here steps count by w, so that z' is an average of the neighbours' z. A rank that makes r steps
    a second passes on r w of weight, which in the long run is proportional to phi, the fixed point
    of the shares (C phi = phi with sum n; 1 where all ranks have equally many in- and
    out-neighbours). Divided by phi, the gradients of all ranks count alike, whatever their speeds
    and the graph are. (Where phi is not 1 that takes one more copy of x.) The price: the mean of w
    at a step, and with it the effective learning rate, is below 1, the more so the less regularly
    ranks come to their turns: it takes about twice the learning rate of others.
    """

    mailboxes_are_part_of_x = True

    def begin(self, block: Block) -> None:
        super().begin(block)
        block.window.carry_p(True)
        block.add_scalars("w", 1.0)
        self._phi = flow(block.network.topology())[block.network.rank]
        if self._phi != 1:
            block.add("before")

    def before_step(self, block: Block) -> None:
        if self._phi != 1:
            block["before"].copy_(block["x"])

    def before_skip(self, block: Block) -> None:
        self.before_step(block)

    def after_step(self, block: Block) -> None:
        if self._phi != 1:
            block["x"].sub_(block["before"]).div_(self._phi).add_(block["before"])
        self._to_u(block)
        ranks = self._destinations(block) if self._has_weight(block) else []
        share = 1 / (1 + len(ranks))
        sent = [self._reach(self._push, rank, block, share) for rank in ranks]
        copies = sum(map(bool, sent))
        self._sent(block, copies)
        kept = 1 - copies * share  # also of those that turned out to be lost
        block["x"].mul_(kept)
        block.window.p *= kept
        self._collect(block)

    def _has_weight(self, block: Block) -> bool:
        """Whether halves and thirds of u are still exact: else it waits for some to come."""
        return block.window.p > torch.finfo(block["x"].dtype).tiny ** 0.25

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


def flow(graph: nx.DiGraph) -> np.ndarray:
    """Returns phi, by rank: the fixed point, with mean 1, of keeping and sending equal shares."""
    n = len(graph)
    sends = nx.to_numpy_array(graph, nodelist=range(n), weight=None) > 0
    np.fill_diagonal(sends, True)
    shares = (sends / sends.sum(axis=1, keepdims=True)).T
    phi = np.linalg.solve(np.eye(n) - shares + 1 / n, np.ones(n))
    return np.where(np.isclose(phi, 1, atol=1e-12), 1.0, phi)
