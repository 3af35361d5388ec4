"""Whom a rank sends to when one rank of each host talks to another host and the rest stay inside.

Ranks are numbered host by host: rank r is local rank r mod L of host r // L, with L ranks on each
of M hosts. At step t local rank t mod L of every host goes outside: it sends to the same local rank
of another host. The other L - 1 ranks of the host, in the circular order that leaves the outgoing
one out, send to each other. Who finds nobody (the only host, or the only rank that is left inside)
sends to itself: it sits the step out. All ranks together make a permutation.

These are the rules of BlueFog's GetInnerOuterRingDynamicSendRecvRanks and
GetInnerOuterExpo2DynamicSendRecvRanks, for any L >= 1 and M >= 1.
"""


def ring_peers(
    rank: int, step: int, ranks_per_host: int, hosts: int, backward: bool = False
) -> int:
    """Returns the rank that `rank` sends to at `step`: the next one inside, or on the next host.

    With `backward` it is the rank that `rank` receives from, the inverse permutation.
    """
    sign = -1 if backward else 1
    return _peer(rank, step, ranks_per_host, hosts, hops=(sign, sign))


def exponential_peers(
    rank: int, step: int, ranks_per_host: int, hosts: int, backward: bool = False
) -> int:
    """Returns the rank that `rank` sends to at `step`: 2^k places on inside, or 2^k hosts on.

    k is step mod ceil(log2 m), where m is the number of places: L - 1 inside, M outside. With
    `backward` it is the rank that `rank` receives from, the inverse permutation.
    """
    sign = -1 if backward else 1
    hops = sign * power_hop(step, ranks_per_host - 1), sign * power_hop(step, hosts)
    return _peer(rank, step, ranks_per_host, hosts, hops)


def power_hop(step: int, places: int) -> int:
    """Returns 2^k with k = step mod ceil(log2 places), and 1 where there is only one place."""
    tau = max(places - 1, 0).bit_length()  # ceil(log2 places) without floats
    return 2 ** (step % max(tau, 1))


def _peer(rank: int, step: int, ranks_per_host: int, hosts: int, hops: tuple[int, int]) -> int:
    """Hops[0] places on inside the host, or hops[1] hosts on for the rank that goes outside."""
    host, local = divmod(rank, ranks_per_host)
    outgoing = step % ranks_per_host
    if local == outgoing:
        return (host + hops[1]) % hosts * ranks_per_host + local
    place = (local - outgoing) % ranks_per_host - 1  # among those inside; 0 is after outgoing
    place = (place + hops[0]) % (ranks_per_host - 1)
    return host * ranks_per_host + (outgoing + 1 + place) % ranks_per_host
