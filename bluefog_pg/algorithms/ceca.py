from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology
from bluefog_pg.topology import CecaUpdate
from bluefog_pg.topology.transform import received


@register("ceca")
class CECA(Algorithm):
    """DSGD-CECA: two variables, averaged exactly in every ceil(log2 n) steps (arXiv:2306.00256).

    s = lr g(the variable sent in this step, x or z);
    (x', z') = the step's exchange of (x - s, z - s);  z0 = x0

    For any number of ranks, with one message per step (see `bluefog_pg.ceca`). Biased like `atc`.
    In steps that send z the parameters are z, from the forward pass until what was sent is
    combined; outside of steps, for evaluation and saving, they are x. The exchange runs from
    optimizer.step() to the next use of the parameters. Any optimizer: s is what it subtracts.
    """

    exchanged = ("z",)  # x and z take turns, so there is memory for one arrival only
    memory = 2
    needs_optimizer = True
    default_topology = "ceca"

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        return {"W": topology, "received": received(topology)}

    def begin(self, block: Block) -> None:
        block["z"].copy_(block["x"])

    def before_forward(self, block: Block) -> None:
        if self._update(block).sends == "z":
            self._swap(block)

    def before_step(self, block: Block) -> None:
        block.arrived("x").copy_(block["x"])

    def after_step(self, block: Block) -> None:
        before, after = block.arrived("x"), block["x"]
        block["z"].add_(after).sub_(before)
        block.start("x", over="received")

    def skip(self, block: Block) -> None:
        block.start("x", over="received")

    def combine(self, block: Block) -> None:
        update, sends_z = self._update(block), block.converted
        of_sent, of_other = (update.z, update.x) if sends_z else (update.x, update.z)
        block.finish()
        r, sent, other = block["x"], block.arrived("x"), block["z"]
        other.mul_(of_other[0]).add_(r, alpha=of_other[1])
        r.mul_(of_sent[1]).add_(sent, alpha=of_sent[0])
        block.touch()
        self._show_x(block)

    def abandon(self, block: Block) -> None:
        self._show_x(block)

    def _show_x(self, block: Block) -> None:
        if block.converted:
            self._swap(block)

    def _swap(self, block: Block) -> None:
        block.swap("x", "z")
        block.converted = not block.converted

    def _update(self, block: Block) -> CecaUpdate:
        return block.network.topology().update(block.network.step)
