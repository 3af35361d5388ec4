"""CECA: the exact average in ceil(log2 n) rounds of one message each, for any number of ranks.

Ding, Jin, Ying, Yuan and Yin, "DSGD-CECA: Decentralized SGD with Communication-Optimal Exact
Consensus Algorithm", ICML 2023 (arXiv 2306.00256).
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..arguments import check_int
from ..build import SizeError, check_size
from ..registry import register
from ..schedule import Schedule
from .peer_rounds import ceil_log2, one_peer

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CecaUpdate:
    """What the ranks do in one round: each sends x or z, and mixes what it hears into both.

    With r = the variable sent, of rank sources[i], rank i sets x = x_self x + x_received r and
    z = z_self z + z_received r, both from the old x and z.
    """

    sends: Literal["x", "z"]
    """Which variable goes out; DSGD-CECA takes the gradient there."""
    sources: tuple[int, ...]
    """The rank that rank i receives from, for each i; a permutation."""
    x: tuple[float, float]
    """(weight of the own x, weight of the received value) in the new x."""
    z: tuple[float, float]
    """(weight of the own z, weight of the received value) in the new z."""
    resets: bool
    """Whether a period begins: the old z is forgotten (its weight is 0)."""

    def apply(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Returns the new (x, z) of all ranks; the arrays have one row per rank."""
        received = (x if self.sends == "x" else z)[list(self.sources)]
        new_x = self.x[0] * x + self.x[1] * received
        return new_x, self.z[0] * z + self.z[1] * received


class CecaSchedule(Schedule):
    """A schedule of two variables per rank, x and z; `update` says what is done with them.

    x is the consensus value, to evaluate and to save: after the last round of a period it is the
    exact mean of all ranks. z is not: it ends as the mean of the n - 1 other ranks, and the next
    period forgets it. Start with z = x, or with any z.

    The graph of a step carries x's row: the self weight, and the weight of the received value on
    the edge that it comes over. In a round that sends x it is the whole update of x; in one that
    sends z it would, as a mixing of x alone, still be doubly stochastic, but not exact.

    Args:
        n: number of ranks.
        variant: 2 or 1, see `ceca`.
    """

    def __init__(self, n: int, variant: int = 2) -> None:
        n, self.variant = check_size(n), _check_variant(n, variant)
        graph_at = partial(_round, n, self.variant)
        super().__init__(graph_at, n, period=max(ceil_log2(n), 1), name=f"ceca{self.variant}p")

    def update(self, step: int) -> CecaUpdate:
        """Returns the update of `step`, counted from 0.

        Raises:
            TypeError: step is not an int.
            ValueError: step is negative.
        """
        step = check_int("step", step, 0)
        return _update(self.size, self.variant, step % self.period)

    def joint_matrix(self, step: int) -> Array:
        """Returns the matrix of `step` that acts on [x; z]: shape (2n, 2n), float64.

        Row i is the new x of rank i and row n + i its new z.
        """
        x, z = np.split(np.eye(2 * self.size), 2)
        return np.concatenate(self.update(step).apply(x, z))


@register
def ceca(n: int, variant: int = 2) -> CecaSchedule:
    """CECA-2P or CECA-1P: x is the exact average after every tau = ceil(log2 n) rounds.

    No scheme with one message per rank and round can be faster. Two variables per rank: see
    `CecaSchedule`. The period is tau; for n = 1 it is 1, and the graph is a lone self-loop.

    Round t takes the t-th highest of the tau bits of n - 1; m is the number that the bits before
    it make, 0 at first. Where r is what is received:

        bit 1: ranks send x;  x = (x + r)/2;                        z = m/(2m+1) z + (m+1)/(2m+1) r
        bit 0: ranks send z;  x = (m+1)/(2m+1) x + m/(2m+1) r;      z = (z + r)/2

    Then m = 2m + bit, x_i is the mean of m + 1 ranks, i among them, and z_i that of the other m.

    Args:
        n: number of ranks.
        variant: 2 (two ports) receives from rank i - m - bit and sends to i + m + bit (mod n).
            1 (one port) exchanges with one partner, i + 2m + 1 for odd i and i - 2m - 1 for even i.

    Raises:
        SizeError: variant 1 and an odd n other than 1.
        ValueError: n below 1, or another variant.
    """
    return CecaSchedule(n, variant)


def _round(n: int, variant: int, step: int) -> nx.DiGraph:
    update = _update(n, variant, step)
    destinations = sorted(range(n), key=update.sources.__getitem__)  # the inverse permutation
    return one_peer(destinations, update.x)


@lru_cache(maxsize=128)
def _update(n: int, variant: int, step: int) -> CecaUpdate:
    if n == 1:
        return CecaUpdate("x", (0,), x=(1.0, 0.0), z=(0.0, 1.0), resets=True)
    left = ceil_log2(n) - step
    m, bit = (n - 1) >> left, (n - 1) >> (left - 1) & 1
    total = 2 * m + 1
    larger, smaller, half = (m + 1) / total, m / total, (0.5, 0.5)
    sources = _sources(n, variant, m, bit)
    if bit:
        return CecaUpdate("x", sources, x=half, z=(smaller, larger), resets=m == 0)
    return CecaUpdate("z", sources, x=(larger, smaller), z=half, resets=False)


def _sources(n: int, variant: int, m: int, bit: int) -> tuple[int, ...]:
    if variant == 2:
        return tuple((i - m - bit) % n for i in range(n))
    hop = 2 * m + 1
    return tuple((i + hop if i % 2 else i - hop) % n for i in range(n))


def _check_variant(n: int, variant: int) -> int:
    if variant not in (1, 2):
        raise ValueError(f"variant must be 1 or 2, got {variant!r}")
    if variant == 1 and n % 2 and n > 1:
        raise SizeError(f"ceca with variant=1 pairs the ranks and needs an even n, got n={n}")
    return int(variant)
