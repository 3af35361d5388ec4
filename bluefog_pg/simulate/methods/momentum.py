"""Decentralized gradient descent with momentum. Biased under heterogeneous data.

W is doubly stochastic. With learning rate lr and momentum beta all of them move as fast as DGD with
lr / (1 - beta). Their bias differs: that of DecentLaM and QG-DSGDm is that of DGD with lr, and that
of DmSGD is about 1 / (1 - beta) times as large.
"""

from collections.abc import Iterator

import numpy as np

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def dmsgd(x: Array, gradient: Gradient, rounds: Rounds, momentum: float = 0.9) -> Iterator[Array]:
    """DmSGD with local momentum (arXiv 1905.03817, with an average in every step).

    m' = momentum m + g(x);  x' = W (x - lr m')
    """
    m = np.zeros_like(x)
    for w, lr in rounds:
        m = momentum * m + gradient(x)
        x = w @ (x - lr * m)
        yield x


@register
def dmsgd_mixed(
    x: Array, gradient: Gradient, rounds: Rounds, momentum: float = 0.9
) -> Iterator[Array]:
    """DmSGD that averages the momentum too (arXiv 2110.13363): two messages a round.

    m = momentum m + g(x);  x' = W (x - lr m);  m' = W m
    """
    m = np.zeros_like(x)
    for w, lr in rounds:
        m = momentum * m + gradient(x)
        x, m = w @ (x - lr * m), w @ m
        yield x


@register
def decentlam(
    x: Array, gradient: Gradient, rounds: Rounds, momentum: float = 0.9
) -> Iterator[Array]:
    """DecentLaM (arXiv 2104.11981): momentum without its bias.

    d = (x - W (x - lr g(x))) / lr;  m' = momentum m + d;  x' = x - lr m'
    """
    m = np.zeros_like(x)
    for w, lr in rounds:
        direction = (x - w @ (x - lr * gradient(x))) / lr
        m = momentum * m + direction
        x = x - lr * m
        yield x


@register
def qg_dsgdm(
    x: Array, gradient: Gradient, rounds: Rounds, momentum: float = 0.9
) -> Iterator[Array]:
    """QG-DSGDm, quasi-global momentum (arXiv 2102.04761).

    x' = W (x - lr (momentum m + g(x)));  m' = momentum m + (1 - momentum) (x - x') / lr
    """
    m = np.zeros_like(x)
    for w, lr in rounds:
        x_old, x = x, w @ (x - lr * (momentum * m + gradient(x)))
        m = momentum * m + (1 - momentum) * (x_old - x) / lr
        yield x
