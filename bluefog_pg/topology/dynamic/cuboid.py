"""Hyper-cuboids: ranks average in groups along one axis of a box after the other.

Nguyen, Jiang, Ying and Uribe, "On graphs with finite-time consensus and their use in gradient
tracking" (arXiv 2311.01317).
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial

import networkx as nx

from ..arguments import check_int
from ..build import SizeError, check_size
from ..registry import register
from ..schedule import Schedule
from .peer_rounds import averages, round_graph


@register
def hyper_cuboid(n: int, k: int | None = None) -> Schedule:
    """Ranks are the cells of a p_1 x ... x p_m box; step t averages along axis t mod m.

    n = p_1 ... p_m with p_1 <= p_2 <= ...; the coordinates of rank i are its digits in that mixed
    radix, p_1's the lowest. In a round of factor p each rank averages with the p - 1 others that
    differ from it in this digit only, all weights 1/p. Symmetric; the product over a period is the
    exact average. The period is m; for n = 1 it is 1, and the graph is a lone self-loop.

    Args:
        n: number of ranks.
        k: largest allowed degree. The factors are the fewest that are at most k + 1 (of several
            such, those with the smaller largest factor). Default: the prime factors of n; the
            degree is then the largest of them - 1.

    Raises:
        SizeError: n has a prime factor above k + 1.
        ValueError: n or k below 1.
    """
    n = check_size(n)
    factors = prime_factors(n) if k is None else fewest_factors(n, check_int("k", k, 1) + 1)
    if factors is None:
        raise SizeError(
            f"hyper_cuboid with k={k} needs an n whose prime factors are at most {k + 1}, "
            f"got n={n} = {' * '.join(map(str, prime_factors(n)))}"
        )
    make = partial(_cuboid_round, n, factors)
    return Schedule(make, size=n, period=max(len(factors), 1), name="hyper_cuboid")


def axis_groups(nodes: Sequence[int], factors: Sequence[int], axis: int) -> list[Sequence[int]]:
    """The groups that average in the round of `axis`, where nodes[c] is the rank of cell c."""
    stride = math.prod(factors[:axis])
    span = stride * factors[axis]
    return [
        nodes[first + offset : first + span : stride]
        for first in range(0, len(nodes), span)
        for offset in range(stride)
    ]


def prime_factors(n: int) -> tuple[int, ...]:
    """Returns the prime factors of n, ascending; none for 1."""
    factors, p = [], 2
    while p * p <= n:
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return (*factors, n) if n > 1 else tuple(factors)


@lru_cache(maxsize=4096)
def fewest_factors(n: int, limit: int) -> tuple[int, ...] | None:
    """Returns the fewest factors in 2..limit with product n, ascending; None if there are none.

    Of several with equally many factors it gives those whose largest is smallest.
    """
    if n == 1:
        return ()
    found = [
        (*rest, largest)
        for largest in range(2, min(n, limit) + 1)
        if n % largest == 0 and (rest := fewest_factors(n // largest, largest)) is not None
    ]
    return min(found, key=lambda factors: (len(factors), factors[::-1]), default=None)


def _cuboid_round(n: int, factors: tuple[int, ...], axis: int) -> nx.DiGraph:
    if not factors:
        return round_graph(n, [])
    return round_graph(n, averages(axis_groups(range(n), factors, axis)))
