"""DSGD on two variables that CECA averages exactly in every ceil(log2 n) rounds."""

from collections.abc import Iterable, Iterator

from bluefog_pg.simulate.methods.registry import Gradient, register
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import CecaUpdate


@register
def dsgd_ceca(
    x: Array, gradient: Gradient, rounds: Iterable[tuple[CecaUpdate, float]]
) -> Iterator[Array]:
    """DSGD-CECA (arXiv 2306.00256). Biased like DGD.

    s = lr g(the variable sent in this round, x or z)
    (x', z') = the round's exchange of (x - s, z - s);  z0 = x0.  Yields x'.
    """
    z = x
    for exchange, lr in rounds:
        step = lr * gradient(x if exchange.sends == "x" else z)
        x, z = exchange.apply(x - step, z - step)
        yield x
