import math

import networkx as nx
import numpy as np

from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("a2cid2")
class A2CiD2(Windowed):
    """A2CiD2: AD-PSGD with a continuous momentum between averages (arXiv:2306.08289).

    (x, v) <- exp(h [[-1, 1], [1, -1]]) (x, v) - lr g(x);
    x_i' = x_i - d / 2;  v_i' = v_i - a d;  x_j' = x_j + d / 2;  v_j' = v_j + a d;  d = x_i - x_j

    Every step of the optimizer, which moves x and v alike, is one unit of a rank's time. h and a
    come from the graph: h = 1 / (2 sqrt(r s)), a = sqrt(r / s) / 2, where r is the inverse of the
    algebraic connectivity of the graph whose edges count as often as their ranks choose each other,
    and s half of the largest effective resistance of an edge. It helps where connectivity is poor
    (rings). Averages are as in `ad_psgd`. Any optimizer.
    """

    readable = True
    mailboxes_are_part_of_x = True
    kept = ("v", "before")
    memory = "4 d + 5"
    default_topology = "symmetric_exponential"

    def begin(self, block: Block) -> None:
        super().begin(block)
        self._h, self._a = constants(block.network.topology())
        block["v"].copy_(block["x"])

    def before_step(self, block: Block) -> None:
        block["before"].copy_(block["x"])

    def before_skip(self, block: Block) -> None:
        self.before_step(block)

    def after_step(self, block: Block) -> None:
        x, v, change = block["x"], block["v"], block["before"]
        change.sub_(x).neg_()
        x.sub_(change)  # as it was before optimizer.step(), which moves x and v alike
        gap = v.sub(x).mul_((1 - math.exp(-2 * self._h)) / 2)
        x.add_(gap).add_(change)
        v.sub_(gap).add_(change)
        self._collect(block)
        partner = self._partner(block)
        shown = None if partner is None else self._reach(block.window.value_of, partner)
        if shown is not None:
            d = shown[0].sub_(x).neg_()
            if self._reach(self._give, partner, block, d):
                x.sub_(d, alpha=0.5)
                v.sub_(d, alpha=self._a)
                self._sent(block, 1)
        block.touch()
        block.window.update(self_weight=1.0, neighbor_weights={})  # shows x

    def _collect(self, block: Block) -> None:
        """Mailboxes hold sums of d."""
        ones = dict.fromkeys(block.window.in_neighbors, 1.0)
        d = block.window.update(self_weight=0.0, neighbor_weights=ones, reset=True, clone=True)
        block["x"].add_(d, alpha=0.5)
        block["v"].add_(d, alpha=self._a)
        block.touch()

    def _give(self, rank: int, block: Block, value: object) -> None:
        block.window.accumulate(value, dst_weights={rank: 1.0})


def constants(graph: nx.DiGraph) -> tuple[float, float]:
    """Returns h and a for ranks that each choose one neighbour per step, all equally often."""
    n = len(graph)
    laplacian = np.zeros((n, n))
    edges = [(i, j) for i, j in graph.edges if i != j]
    degrees = {i: sum(1 for _, j in graph.out_edges(i) if j != i) for i in graph}
    for i, j in edges:
        difference = np.zeros(n)
        difference[[i, j]] = 1, -1
        laplacian += np.outer(difference, difference) / degrees[i]
    if not edges:
        return 0.0, 0.5
    inverse = np.linalg.pinv(laplacian)
    r = 1 / np.linalg.eigvalsh(laplacian)[1]
    s = max(inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in edges) / 2
    return 1 / (2 * math.sqrt(r * s)), math.sqrt(r / s) / 2
