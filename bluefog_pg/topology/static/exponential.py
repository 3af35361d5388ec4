"""Exponential graphs: rank i exchanges with the ranks at distance base^k.

Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably Efficient for Decentralized Deep
Training", NeurIPS 2021 (arXiv 2110.13363).
"""

import networkx as nx

from ..arguments import check_int
from ..build import check_size, circulant, powers
from ..registry import register


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
    return circulant(n, powers(check_int("base", base, low=2), n))


@register
def symmetric_exponential(n: int, base: int = 2) -> nx.DiGraph:
    """Rank i exchanges with i + base^k and i - base^k (mod n) for every power base^k <= n/2.

    All weights are equal. Symmetric; for base 2 at most 2 floor(log2 n) neighbours.

    Raises:
        ValueError: n below 1, or base below 2.
    """
    n = check_size(n)
    hops = list(powers(check_int("base", base, low=2), n // 2 + 1))
    return circulant(n, [*hops, *(-hop for hop in hops)])
