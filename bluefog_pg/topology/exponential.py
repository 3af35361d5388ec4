"""Exponential graphs: rank i exchanges with the ranks at distance base^k.

Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably Efficient for Decentralized Deep
Training", NeurIPS 2021 (arXiv 2110.13363).
"""

import operator
from collections.abc import Iterator
from functools import partial

import networkx as nx

from .build import check_size, circulant
from .registry import register
from .schedule import Schedule


@register
def exponential(n: int, base: int = 2) -> nx.DiGraph:
    """Rank i sends to (i + base^k) mod n for every power base^k < n, all weights equal.

    W = (I + sum_k P_{base^k}) / (tau + 1), where P_s receives from rank i - s and tau is the
    number of powers; for base 2, tau = ceil(log2 n). Directed. The consensus rate for base 2 is
    1 - 2/(1 + tau) for even n, and smaller for odd n.

    Raises:
        ValueError: n below 1, or base below 2.
    """
    n = check_size(n)
    return circulant(n, _powers(_check_base(base), n))


@register
def one_peer_exponential(n: int) -> Schedule:
    """At step t rank i sends to i + 2^k and receives from i - 2^k (mod n), k = t mod tau.

    W_t = (I + P_{2^k}) / 2 with tau = ceil(log2 n), so every step costs one message per rank. The
    product over a period is the exact average if and only if n is a power of two. The period is
    tau; for n = 1 it is 1, and the graph is a lone self-loop.

    Raises:
        ValueError: n below 1.
    """
    n = check_size(n)
    tau = (n - 1).bit_length()  # ceil(log2 n) without floats
    return Schedule(
        partial(_one_peer_round, n), size=n, period=max(tau, 1), name="one_peer_exponential"
    )


def _one_peer_round(n: int, k: int) -> nx.DiGraph:
    return circulant(n, [2**k])


def _powers(base: int, limit: int) -> Iterator[int]:
    """1, base, base^2, ... below limit, by multiplication: a float log misses 3^5 = 243."""
    power = 1
    while power < limit:
        yield power
        power *= base


def _check_base(base: int) -> int:
    try:
        base = operator.index(base)
    except TypeError:
        raise TypeError(f"base must be an int, not {base!r}") from None
    if base < 2:
        raise ValueError(f"base must be at least 2, got {base}")
    return base
