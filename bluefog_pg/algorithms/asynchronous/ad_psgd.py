from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block


@register("ad_psgd")
class ADPSGD(Windowed):
    """AD-PSGD: asynchronous, with one neighbour at a time, chosen at random (arXiv:1710.06952).

    x_i' = x_i - d / 2;  x_j' = x_j + d / 2;  d = x_i - x_j

    Rank i does both after its step, with the x_j that its partner has last shown: it changes its
    own value at once, and the partner's half is added when that one next looks; until then i
    chooses others. So the sum of the two is what it was, whatever happens in between, and the mean
    is kept; no lock is held and no order of ranks is needed. Any optimizer.
    """

    readable = True
    mailboxes_are_part_of_x = True
    memory = "4 d + 3"
    default_topology = "symmetric_exponential"

    def after_step(self, block: Block) -> None:
        self._collect(block)
        partner = self._partner(block)
        shown = None if partner is None else self._reach(block.window.value_of, partner)
        if shown is None:
            return
        half = shown[0].sub_(block["x"]).mul_(-0.5)
        if self._reach(self._give, partner, block, half):
            block["x"].sub_(half)
            block.touch()
            self._sent(block, 1)
        block.window.update(self_weight=1.0, neighbor_weights={})  # shows x

    def _give(self, rank: int, block: Block, value: object) -> None:
        block.window.accumulate(value, dst_weights={rank: 1.0})
