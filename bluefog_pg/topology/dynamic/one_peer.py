"""Schedules in which each rank sends one message to a rank at distance 2^k.

One-peer exponential: Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably Efficient
for Decentralized Deep Training", NeurIPS 2021 (arXiv 2110.13363). Dissemination: Daily, Vishnu,
Siegel, Warfel and Amatya, "GossipGraD" (arXiv 1803.05880).
"""

from functools import partial

import networkx as nx

from ..arguments import check_seed
from ..build import SizeError, check_size
from ..draws import random_order
from ..registry import register
from ..schedule import Schedule
from .peer_rounds import ceil_log2, one_peer

_ORDERS = ("sequential", "random")


@register
def one_peer_exponential(n: int, order: str = "sequential", seed: int = 0) -> Schedule:
    """At step t rank i sends to i + 2^k and receives from i - 2^k (mod n).

    W_t = (I + P_{2^k}) / 2, where P_s receives from rank i - s, so every step costs one message per
    rank. Each of the hops k = 0..tau-1, tau = ceil(log2 n), is taken once in tau steps, whose
    product is the exact average if and only if n is a power of two, in any order: the W_t commute.
    For n = 1 the graph is a lone self-loop.

    Args:
        n: number of ranks.
        order: "sequential" takes k = t mod tau, with period tau (1 for n = 1). "random" takes the
            hops of the steps b tau .. (b + 1) tau - 1 in an order drawn anew for each b, and never
            repeats.
        seed: of the random order.

    Raises:
        ValueError: n below 1, another order, or a seed below 0.
    """
    n, seed = check_size(n), check_seed(seed)
    if order not in _ORDERS:
        raise ValueError(f"order must be one of {', '.join(_ORDERS)}, got {order!r}")
    if order == "random":
        return Schedule(partial(_random_hop, n, seed), size=n, name="one_peer_exponential")
    return Schedule(partial(_hop, n), size=n, period=_tau(n), name="one_peer_exponential")


@register
def one_peer_hypercube(n: int) -> Schedule:
    """At step t rank i exchanges with i XOR 2^k, k = t mod log2 n, all weights 1/2.

    For powers of two. Symmetric; the product over a period is the exact average. The period is
    log2 n; for n = 1 it is 1, and the graph is a lone self-loop.

    Raises:
        SizeError: n is not a power of two.
        ValueError: n below 1.
    """
    n = check_size(n)
    if n & (n - 1):
        raise SizeError(f"one_peer_hypercube needs a power of two, got n={n}")
    return Schedule(partial(_flip, n), size=n, period=_tau(n), name="one_peer_hypercube")


@register
def dissemination(n: int, seed: int = 0) -> Schedule:
    """One-peer exponential in an order of the ranks that is shuffled every ceil(log2 n) steps.

    GossipGraD's partner rotation: in the steps b tau .. (b + 1) tau - 1, tau = ceil(log2 n), the
    rank at place p of the b-th random order sends to the one at place p + 2^k (mod n),
    k = t mod tau; all weights are 1/2. Never repeats. The product over these tau steps is the exact
    average if and only if n is a power of two.

    Raises:
        ValueError: n below 1, or a seed below 0.
    """
    n, seed = check_size(n), check_seed(seed)
    return Schedule(partial(_shuffled_hop, n, seed), size=n, name="dissemination")


def _tau(n: int) -> int:
    """ceil(log2 n), but 1 for n = 1: a period has at least one round."""
    return max(ceil_log2(n), 1)


def _hop(n: int, k: int) -> nx.DiGraph:
    return one_peer([(i + 2**k) % n for i in range(n)])


def _random_hop(n: int, seed: int, step: int) -> nx.DiGraph:
    block, at = divmod(step, _tau(n))
    return _hop(n, random_order(_tau(n), seed, block)[at])


def _flip(n: int, k: int) -> nx.DiGraph:
    return one_peer([i ^ 2**k if n > 1 else i for i in range(n)])


def _shuffled_hop(n: int, seed: int, step: int) -> nx.DiGraph:
    block, k = divmod(step, _tau(n))
    ranks = random_order(n, seed, block)
    destinations = [0] * n
    for place, rank in enumerate(ranks):
        destinations[rank] = ranks[(place + 2**k) % n]
    return one_peer(destinations)
