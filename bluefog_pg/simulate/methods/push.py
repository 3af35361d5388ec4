"""Methods for directed graphs on which no doubly stochastic weights are known.

C is `column_stochastic(W)` and R is `row_stochastic(W)`; both are W itself where W already fits.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from bluefog_pg.simulate.methods.registry import Gradient, Rounds, register
from bluefog_pg.simulate.rounds import Array

Indices = npt.NDArray[np.int64]


@register
def push_sum(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Stochastic gradient push (arXiv 1811.10792). Biased like DGD.

    z = x / v;  x' = C (x - lr g(z));  v' = C v;  v0 = 1.  Yields z'.
    """
    v = np.ones((len(x), 1))
    for w, lr in rounds:
        c = column_stochastic(w)
        x, v = c @ (x - lr * gradient(x / v)), c @ v
        yield x / v


@register
def push_diging(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Push-DIGing, adapt then combine (arXiv 1607.03218). Exact.

    u' = C (u - lr y);  v' = C v;  x' = u' / v';  y' = C (y + g(x') - g(x))
    u0 = x0;  v0 = 1;  y0 = g(x0)
    """
    u, v = x, np.ones((len(x), 1))
    y = g = gradient(x)
    for w, lr in rounds:
        c = column_stochastic(w)
        u, v = c @ (u - lr * y), c @ v
        x = u / v
        g_old, g = g, gradient(x)
        y = c @ (y + g - g_old)
        yield x


@register
def push_pull(x: Array, gradient: Gradient, rounds: Rounds) -> Iterator[Array]:
    """Push-Pull, also called AB (arXiv 1810.06653). Exact.

    x' = R (x - lr y);  y' = C y + g(x') - g(x);  y0 = g(x0)
    """
    y = g = gradient(x)
    for w, lr in rounds:
        x = row_stochastic(w) @ (x - lr * y)
        g_old, g = g, gradient(x)
        y = column_stochastic(w) @ y + g - g_old
        yield x


def column_stochastic(w: csr_array) -> csr_array:
    """Returns W where its columns sum to 1, else each rank's 1 / (out-degree + 1) on W's edges.

    That is what senders can know: what they give away, the share that they keep included, is 1.
    """
    if _sum_to_one(w, axis=0):
        return w
    receivers, senders = _entries(w)
    weights = 1 / np.bincount(senders)
    return csr_array((weights[senders], (receivers, senders)), shape=w.shape)


def row_stochastic(w: csr_array) -> csr_array:
    """Returns W where its rows sum to 1, else each rank's 1 / (in-degree + 1) on W's edges."""
    if _sum_to_one(w, axis=1):
        return w
    receivers, senders = _entries(w)
    weights = 1 / np.bincount(receivers)
    return csr_array((weights[receivers], (receivers, senders)), shape=w.shape)


def _sum_to_one(w: csr_array, axis: int) -> bool:
    return bool(np.abs(w.sum(axis=axis) - 1).max() < 1e-10)


def _entries(w: csr_array) -> tuple[Indices, Indices]:
    """(receivers, senders) of the edges between ranks, and of a self-loop at every rank."""
    ranks = np.arange(w.shape[0])
    receivers = np.repeat(ranks, np.diff(w.indptr))
    between = receivers != w.indices
    return tuple(np.append(at[between], ranks) for at in (receivers, w.indices))
