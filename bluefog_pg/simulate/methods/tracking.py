"""Gradient tracking: y follows the mean gradient, because its mean over the ranks equals it.

Exact under heterogeneous data; W is doubly stochastic, and may be directed and change from round
to round. Two messages a round, x and y.
"""

from collections.abc import Iterator

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array


@register
def gradient_tracking(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Gradient tracking, adapt then combine (Aug-DGM; on finite-time graphs arXiv 2311.01317).

    x' = W (x - lr y);  y' = W (y + g(x') - g(x));  y0 = g(x0)
    """
    y = g = gradient(x)
    for w, lr in rounds:
        x = w @ (x - lr * y)
        g_old, g = g, gradient(x)
        y = w @ (y + g - g_old)
        yield x


@register
def semi_atc_tracking(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Gradient tracking whose y is not averaged with its own news (semi-ATC-GT, arXiv 2110.09993).

    x' = W (x - lr y);  y' = W y + g(x') - g(x);  y0 = g(x0)
    """
    y = g = gradient(x)
    for w, lr in rounds:
        x = w @ (x - lr * y)
        g_old, g = g, gradient(x)
        y = w @ y + g - g_old
        yield x


@register
def diging(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """DIGing: gradient tracking, adapt with communication (arXiv 1607.03218).

    x' = W x - lr y;  y' = W y + g(x') - g(x);  y0 = g(x0)
    """
    y = g = gradient(x)
    for w, lr in rounds:
        x = w @ x - lr * y
        g_old, g = g, gradient(x)
        y = w @ y + g - g_old
        yield x


@register
def momentum_tracking(
    x: Array, gradient: Gradient, rounds: Rounds, momentum: float = 0.9
) -> Iterator[Array]:
    """Momentum Tracking (arXiv 2209.15505).

    u' = momentum u + g(x);  x' = W x - lr (u' - c);  c' = W (c - u') + u'
    u0 = c0 = (g(x0) - mean g(x0)) / (1 - momentum), which takes one exact average
    """
    g = gradient(x)
    u = c = (g - g.mean(axis=0)) / (1 - momentum)
    for w, lr in rounds:
        u = momentum * u + gradient(x)
        x = w @ x - lr * (u - c)
        c = w @ (c - u) + u
        yield x
