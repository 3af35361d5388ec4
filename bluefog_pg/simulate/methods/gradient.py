"""Plain decentralized gradient descent. Each converges to a neighborhood of the optimum at most.

W is doubly stochastic; it may be directed and change from round to round.
"""

from collections.abc import Iterator

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def awc(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Decentralized gradient descent, adapt with communication (D-PSGD, arXiv 1705.09056).

    x' = W x - lr g(x)
    """
    for w, lr in rounds:
        x = w @ x - lr * gradient(x)
        yield x


@register
def atc(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Decentralized gradient descent, adapt then combine (diffusion, arXiv 1111.0034).

    x' = W (x - lr g(x))
    """
    for w, lr in rounds:
        x = w @ (x - lr * gradient(x))
        yield x


@register
def gossipgrad(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """GossipGraD (arXiv 1803.05880). For data that is dealt out at random.

    x' = x - lr W g(x)
    """
    for w, lr in rounds:
        x = x - lr * (w @ gradient(x))
        yield x
