"""BlueFog's iterators of whom one rank sends to and receives from, step by step.

Each is infinite and yields (send_ranks, recv_ranks), two lists without the rank itself; the caller
chooses weights, most often 1 / (len(recv_ranks) + 1) for itself and for each that it receives from.
A rank that has no peer in a step gets empty lists and keeps its value. Arguments are checked in the
call, not at the first step.
"""

from collections.abc import Callable, Iterator
from itertools import count

import networkx as nx

from .arguments import check_int
from .build import check_size
from .dynamic.inner_outer_rules import exponential_peers, power_hop, ring_peers
from .graph import check_graph, check_type
from .weights import recv_weights, send_ranks

SendRecv = tuple[list[int], list[int]]


def GetDynamicOnePeerSendRecvRanks(topo: nx.DiGraph, self_rank: int) -> Iterator[SendRecv]:
    """At step t every rank sends to one of its out-neighbours in turn.

    It is number t mod m of its m out-neighbours, in the order in which they come after it on the
    circle 0..n-1. The receive list has all ranks that choose this one, ascending: from none to all.
    Weights of 1 / (len(recv_ranks) + 1) keep the mean only where all ranks have the same hops, as
    in `exponential` and `ring`; elsewhere use push-sum.

    Raises:
        TypeError, ValueError: topo is no valid topology, or self_rank is not one of its ranks.
    """
    check_type(topo, expected="an nx.DiGraph")
    n = len(topo)
    check_graph(topo, n)
    self_rank = _check_rank(self_rank, n)
    _, sources = recv_weights(topo, self_rank)
    turns = {
        rank: sorted(send_ranks(topo, rank), key=lambda dst, rank=rank: (dst - rank) % n)
        for rank in (self_rank, *sources)
    }

    def at(step: int) -> SendRecv:
        chosen = {rank: turn[step % len(turn)] for rank, turn in turns.items() if turn}
        sends = [chosen[self_rank]] if self_rank in chosen else []
        return sends, [src for src in sources if chosen[src] == self_rank]

    return map(at, count())


def GetExp2DynamicSendRecvMachineRanks(
    world_size: int, local_size: int, self_rank: int, local_rank: int
) -> Iterator[SendRecv]:
    """One-peer exponential over machines; the lists hold numbers of machines.

    At step t machine m of M sends to m + 2^k and receives from m - 2^k (mod M),
    k = t mod ceil(log2 M). A single machine has nobody to send to.

    Raises:
        ValueError: see `GetInnerOuterRingDynamicSendRecvRanks`, or local_rank is not
            self_rank mod local_size.
    """
    machines, machine, expected = _locate(world_size, local_size, self_rank)
    if local_rank != expected:
        raise ValueError(
            f"self_rank={self_rank} has local_rank {expected} on a machine of "
            f"local_size={local_size}, not {local_rank!r}"
        )

    def at(step: int) -> SendRecv:
        hop = power_hop(step, machines)
        return _without(machine, (machine + hop) % machines, (machine - hop) % machines)

    return map(at, count())


def GetInnerOuterRingDynamicSendRecvRanks(
    world_size: int, local_size: int, self_rank: int
) -> Iterator[SendRecv]:
    """One rank of each machine sends to the next machine, the others form a ring: `ring_peers`.

    Args:
        world_size: number of ranks, a multiple of local_size.
        local_size: number of ranks on each machine, not 2.
        self_rank: whose lists to give.

    Raises:
        TypeError: an argument is no int.
        ValueError: world_size or local_size is below 1, local_size is 2 or doesn't divide
            world_size, or self_rank is not in 0..world_size-1.
    """
    return _inner_outer(ring_peers, world_size, local_size, self_rank)


def GetInnerOuterExpo2DynamicSendRecvRanks(
    world_size: int, local_size: int, self_rank: int
) -> Iterator[SendRecv]:
    """The same with hops of powers of two between machines and inside them: `exponential_peers`.

    Args, Raises: see `GetInnerOuterRingDynamicSendRecvRanks`.
    """
    return _inner_outer(exponential_peers, world_size, local_size, self_rank)


def _inner_outer(
    peers: Callable[..., int], world_size: int, local_size: int, self_rank: int
) -> Iterator[SendRecv]:
    machines, _, _ = _locate(world_size, local_size, self_rank)
    if local_size == 2:
        raise ValueError(
            "local_size must not be 2: the rank that stays inside has no partner there, so that "
            "the two ranks of a machine would never average"
        )

    def at(step: int) -> SendRecv:
        send, recv = (
            peers(self_rank, step, local_size, machines, backward=backward)
            for backward in (False, True)
        )
        return _without(self_rank, send, recv)

    return map(at, count())


def _locate(world_size: int, local_size: int, self_rank: int) -> tuple[int, int, int]:
    """(number of machines, machine of the rank, its local rank)"""
    world_size = check_size(world_size)
    local_size = check_int("local_size", local_size, low=1)
    if world_size % local_size:
        raise ValueError(
            f"world_size={world_size} ranks don't fill machines of local_size={local_size}"
        )
    machine, local_rank = divmod(_check_rank(self_rank, world_size), local_size)
    return world_size // local_size, machine, local_rank


def _check_rank(self_rank: int, n: int) -> int:
    self_rank = check_int("self_rank", self_rank, low=0)
    if self_rank >= n:
        raise ValueError(f"self_rank must be in 0..{n - 1}, got {self_rank}")
    return self_rank


def _without(own: int, send: int, recv: int) -> SendRecv:
    return [send] if send != own else [], [recv] if recv != own else []
