"""Schedules that know which ranks share a host: rank r is on host r // ranks_per_host.

Inner-outer are BlueFog's GetInnerOuterRingDynamicSendRecvRanks and
GetInnerOuterExpo2DynamicSendRecvRanks as schedules.
"""

import math
from collections.abc import Callable
from functools import partial

import networkx as nx

from ..arguments import check_int
from ..build import SizeError, check_size
from ..registry import register
from ..schedule import Schedule
from .inner_outer_rules import exponential_peers, ring_peers
from .peer_rounds import ceil_log2, one_peer, round_graph

MOST_BY_DEFAULT = 8
"""No default puts more ranks on a host: as many as today's hosts have accelerators."""


@register
def inner_outer_ring(n: int, ranks_per_host: int | None = None) -> Schedule:
    """At step t one rank per host sends to the next host, and the others form a ring inside.

    Outside is local rank t mod L, L = ranks_per_host; it sends to the same local rank of the next
    host. The other L - 1 of the host send to the next among them. One message per rank, of which
    one per host leaves it; all weights are 1/2. A rank that finds nobody keeps its value. Directed;
    the period is L.

    Args:
        n: number of ranks.
        ranks_per_host: L. Default: the largest divisor of n in 3..8 that makes two hosts or more;
            1 where there is none, so that every rank is its own host.

    Raises:
        SizeError: ranks_per_host does not divide n.
        ValueError: n or ranks_per_host is below 1, or ranks_per_host is 2: the one that stays
            inside has no partner then, so ranks of different local rank would never mix.
    """
    n, local = _inner_outer_size(n, ranks_per_host)
    make = partial(_inner_outer_round, ring_peers, n, local)
    return Schedule(make, size=n, period=local, name="inner_outer_ring")


@register
def inner_outer_exponential(n: int, ranks_per_host: int | None = None) -> Schedule:
    """At step t one rank per host sends 2^k hosts on, and the others 2^k places on inside.

    As `inner_outer_ring`, but k = t mod ceil(log2 m) with m the number of hosts outside, and L - 1
    inside. The period is the least common multiple of L and the two logarithms.

    Args:
        n: number of ranks.
        ranks_per_host: L, with the same default as in `inner_outer_ring`.

    Raises:
        SizeError: ranks_per_host does not divide n.
        ValueError: n or ranks_per_host is below 1, or ranks_per_host is 2.
    """
    n, local = _inner_outer_size(n, ranks_per_host)
    period = math.lcm(local, _tau(local - 1), _tau(n // local))
    make = partial(_inner_outer_round, exponential_peers, n, local)
    return Schedule(make, size=n, period=period, name="inner_outer_exponential")


@register
def hierarchical_exponential(n: int, ranks_per_host: int | None = None) -> Schedule:
    """One-peer exponential over hosts, with the exact average inside each host in every step.

    With L = ranks_per_host and H = n/L hosts, step t gives all ranks of host h the mean of the
    means of the hosts h and h - 2^k (mod H), k = t mod ceil(log2 H): every rank gives 1/(2L) to
    each rank of the two. Doubly stochastic; the product over a period is the exact average if and
    only if H is a power of two. The period is ceil(log2 H); with one host it is 1, all weights 1/L.

    An executor has no need of the 2L - 1 messages per rank that the graph shows: an all-reduce
    inside and one message per rank to the other host do.

    Args:
        n: number of ranks.
        ranks_per_host: L. Default: the largest divisor of n in 1..8 that makes two hosts or more.

    Raises:
        SizeError: ranks_per_host does not divide n.
        ValueError: n or ranks_per_host is below 1.
    """
    n = check_size(n)
    local = _check_local(n, ranks_per_host, default=_largest_divisor(n, low=1))
    make = partial(_hierarchical_round, n, local)
    return Schedule(make, size=n, period=_tau(n // local), name="hierarchical_exponential")


def _inner_outer_size(n: int, ranks_per_host: int | None) -> tuple[int, int]:
    n = check_size(n)
    local = _check_local(n, ranks_per_host, default=_largest_divisor(n, low=3))
    if local == 2:
        raise ValueError(
            "ranks_per_host must not be 2: while one rank is outside, the other has no partner, "
            "and ranks of different local rank never mix"
        )
    return n, local


def _check_local(n: int, ranks_per_host: int | None, default: int) -> int:
    local = default if ranks_per_host is None else check_int("ranks_per_host", ranks_per_host, 1)
    if n % local:
        raise SizeError(
            f"n must be a multiple of ranks_per_host, got n={n} with {local} ranks per host"
        )
    return local


def _largest_divisor(n: int, low: int) -> int:
    """The largest in low..8 that divides n and is at most n/2; 1 where there is none."""
    fits = (d for d in range(min(MOST_BY_DEFAULT, n // 2), low - 1, -1) if n % d == 0)
    return next(fits, 1)


def _tau(places: int) -> int:
    """ceil(log2 places), but at least 1: a period has at least one round."""
    return max(ceil_log2(max(places, 1)), 1)


def _inner_outer_round(
    peer: Callable[[int, int, int, int], int], n: int, local: int, step: int
) -> nx.DiGraph:
    return one_peer([peer(rank, step, local, n // local) for rank in range(n)])


def _hierarchical_round(n: int, local: int, k: int) -> nx.DiGraph:
    hosts = [range(first, first + local) for first in range(0, n, local)]
    edges = []
    for h, host in enumerate(hosts):
        other = (h - 2**k) % len(hosts)
        heard = host if other == h else [*host, *hosts[other]]
        edges += [(src, dst, 1 / len(heard)) for dst in host for src in heard]
    return round_graph(n, edges)
