from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology
from bluefog_pg.topology import lazy


class _Corrected(Algorithm):
    """psi = x - lr g(x);  phi = psi + x - psi_old;  x' = W phi, where W is the graph `over`.

    c = x - psi_old, 0 at first, is what the last average has changed, and so c' = c + W phi - phi.
    """

    kept = ("c",)
    memory = 2
    over = "W"
    lazy = True

    def after_step(self, block: Block) -> None:
        block["x"].add_(block["c"])
        block.touch()
        block.start("x", over=self.over)

    def combine(self, block: Block) -> None:
        block.finish()
        block["c"].add_(block.shift("x"))


@register("exact_diffusion")
class ExactDiffusion(_Corrected):
    """Exact diffusion, a diffusion (`atc`) that corrects its bias (arXiv:1702.05122).

    psi = x - lr g(x);  phi = psi + x - psi_old (at first phi = psi);  x' = (phi + W phi) / 2

    Exact on heterogeneous data, with one message; W static and symmetric. Theory is for SGD with a
    constant learning rate: after a change of it the correction takes a while to be right again.
    """

    default_topology = "symmetric_exponential"
    over = "lazy"

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        return {"W": topology, "lazy": lazy(topology)}


@register("d2")
class D2(_Corrected):
    """D2 (arXiv:1803.07068): exact diffusion with W in place of (I + W) / 2.

    psi = x - lr g(x);  phi = psi + x - psi_old (at first phi = psi);  x' = W phi

    As `exact_diffusion`, and averages faster, but W has no eigenvalue below -1/3.
    """

    default_topology = "ring"
