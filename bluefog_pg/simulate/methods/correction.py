"""Methods that correct the bias of heterogeneous data with the step before: one message a round.

All three are exact for a W that is symmetric and the same in every round; with a directed or a
changing W they may diverge.
"""

from collections.abc import Iterator

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def extra(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """EXTRA (arXiv 1404.6264).

    x1 = W x0 - lr g(x0)
    x' = x + W x - (x_old + W x_old) / 2 - lr (g(x) - g(x_old))
    """
    x_old = g_old = None
    for w, lr in rounds:
        g = gradient(x)
        if x_old is None:
            x_new = w @ x - lr * g
        else:
            x_new = x + w @ x - (x_old + w @ x_old) / 2 - lr * (g - g_old)
        x_old, g_old, x = x, g, x_new
        yield x


@register
def exact_diffusion(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Exact diffusion (arXiv 1702.05122).

    psi = x - lr g(x);  phi = psi + x - psi_old (at first phi = psi);  x' = (phi + W phi) / 2
    """
    psi_old = x
    for w, lr in rounds:
        psi = x - lr * gradient(x)
        phi = psi + x - psi_old
        psi_old, x = psi, (phi + w @ phi) / 2
        yield x


@register
def d2(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """D2 (arXiv 1803.07068): exact diffusion with W in place of (I + W) / 2.

    psi = x - lr g(x);  phi = psi + x - psi_old (at first phi = psi);  x' = W phi

    Needs a smallest eigenvalue of W above -1/3.
    """
    psi_old = x
    for w, lr in rounds:
        psi = x - lr * gradient(x)
        phi = psi + x - psi_old
        psi_old, x = psi, w @ phi
        yield x
