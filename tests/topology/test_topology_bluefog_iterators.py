"""BlueFog's iterators of peers give BlueFog's values, and right ones where it crashes."""

from itertools import islice

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluefog_pg.topology import (
    ExponentialTwoGraph,
    FullyConnectedGraph,
    GetDynamicOnePeerSendRecvRanks,
    GetExp2DynamicSendRecvMachineRanks,
    GetInnerOuterExpo2DynamicSendRecvRanks,
    GetInnerOuterRingDynamicSendRecvRanks,
    MeshGrid2DGraph,
    StarGraph,
)
from bluefog_pg.topology.dynamic.inner_outer_rules import exponential_peers, ring_peers

INNER_OUTER = [GetInnerOuterRingDynamicSendRecvRanks, GetInnerOuterExpo2DynamicSendRecvRanks]
RULES = [ring_peers, exponential_peers]
MACHINES = [(2, 3), (2, 4), (4, 4), (3, 5), (4, 8), (8, 8), (16, 8)]  # (machines, local size)


def take(iterator, steps):
    return list(islice(iterator, steps))


def all_ranks(make, n, steps):
    """[step][rank] -> (sends, receives), checked to fit together."""
    by_step = list(zip(*(take(make(rank), steps) for rank in range(n)), strict=True))
    for rows in by_step:
        sent = {(src, dst) for src, (sends, _) in enumerate(rows) for dst in sends}
        received = {(src, dst) for dst, (_, receives) in enumerate(rows) for src in receives}
        assert sent == received
        assert all(src != dst for src, dst in sent)
    return by_step


def averages(rows):
    """W of the usual weights: 1 / (number of receives + 1) for itself and each of them."""
    w = np.zeros((len(rows), len(rows)))
    for rank, (_, receives) in enumerate(rows):
        w[rank, [rank, *receives]] = 1 / (len(receives) + 1)
    return w


def product_error(by_step):
    product = np.eye(len(by_step[0]))
    for rows in by_step:
        product = averages(rows) @ product
    return abs(product - 1 / len(product)).max()


def test_one_peer_quoted_sequences():
    exp2 = take(GetDynamicOnePeerSendRecvRanks(ExponentialTwoGraph(16), 0), 5)
    assert exp2 == [([1], [15]), ([2], [14]), ([4], [12]), ([8], [8]), ([1], [15])]
    mesh = take(GetDynamicOnePeerSendRecvRanks(MeshGrid2DGraph(16), 0), 5)
    assert mesh == [([1], []), ([4], []), ([1], [1, 4]), ([4], []), ([1], [])]


def one_peer_by_definition(topo, rank, step):
    n = len(topo)

    def choice(r):
        turn = sorted((dst - r) % n for dst in topo.successors(r) if dst != r)
        return (r + turn[step % len(turn)]) % n

    return [choice(rank)], [r for r in range(n) if r != rank and choice(r) == rank]


@pytest.mark.parametrize(
    "topo", [ExponentialTwoGraph(12), MeshGrid2DGraph(12), StarGraph(7, 3), FullyConnectedGraph(5)]
)
def test_one_peer_by_definition(topo):
    by_step = all_ranks(lambda rank: GetDynamicOnePeerSendRecvRanks(topo, rank), len(topo), 30)
    for step, rows in enumerate(by_step):
        assert list(rows) == [one_peer_by_definition(topo, rank, step) for rank in topo]


@pytest.mark.parametrize(
    ("make", "n", "steps"),
    [(ExponentialTwoGraph, n, k) for n, k in [(4, 2), (8, 3), (16, 4)]]
    + [(FullyConnectedGraph, n, k) for n, k in [(4, 2), (8, 4), (16, 8)]],
)
def test_one_peer_is_exact_for_powers_of_two(make, n, steps):
    topo = make(n)
    by_step = all_ranks(lambda rank: GetDynamicOnePeerSendRecvRanks(topo, rank), n, steps)
    assert product_error(by_step) < 1e-15
    assert product_error(by_step[:-1]) > 1e-3


def test_one_peer_is_not_exact_for_12():
    topo = ExponentialTwoGraph(12)
    by_step = all_ranks(lambda rank: GetDynamicOnePeerSendRecvRanks(topo, rank), 12, 4)
    assert product_error(by_step) > 1e-3


def test_one_peer_without_self_loops_is_the_same():
    topo = MeshGrid2DGraph(9)
    bare = topo.copy()
    bare.remove_edges_from([(i, i) for i in range(9)])
    for rank in range(9):
        with_loops, without = (GetDynamicOnePeerSendRecvRanks(g, rank) for g in (topo, bare))
        assert take(with_loops, 24) == take(without, 24)


def test_one_peer_of_ranks_that_send_to_nobody():
    topo = nx.DiGraph([(0, 1), (2, 1)])
    assert take(GetDynamicOnePeerSendRecvRanks(topo, 1), 2) == [([], [0, 2])] * 2
    assert take(GetDynamicOnePeerSendRecvRanks(topo, 0), 2) == [([1], [])] * 2
    assert take(GetDynamicOnePeerSendRecvRanks(FullyConnectedGraph(1), 0), 2) == [([], [])] * 2


def test_one_peer_lists_belong_to_the_caller():
    iterator = GetDynamicOnePeerSendRecvRanks(ExponentialTwoGraph(4), 0)
    for lists in islice(iterator, 4):
        for ranks in lists:
            ranks.clear()
    assert next(iterator) == ([1], [3])


@pytest.mark.parametrize("machines", [2, 3, 4, 5, 8, 9, 17])
def test_machines_by_definition(machines):
    tau = int(np.log2(machines - 1)) + 1  # BlueFog's own, exact for numbers this small
    for machine in range(machines):
        lists = take(GetExp2DynamicSendRecvMachineRanks(machines * 4, 4, machine * 4 + 1, 1), 12)
        for step, (sends, receives) in enumerate(lists):
            hop = 2 ** (step % tau)
            assert (sends, receives) == ([(machine + hop) % machines], [(machine - hop) % machines])


def test_one_machine_has_nobody_to_send_to():
    assert take(GetExp2DynamicSendRecvMachineRanks(4, 4, 2, 2), 3) == [([], [])] * 3


def ring_by_definition(rank, step, local_size, machines):
    machine, local = divmod(rank, local_size)
    outgoing = step % local_size
    if local == outgoing:
        return [(machine + d) % machines * local_size + local for d in (1, -1)]
    inside = [i for i in range(local_size) if i != outgoing]
    place = inside.index(local)
    return [machine * local_size + inside[(place + d) % len(inside)] for d in (1, -1)]


def exponential_by_definition(rank, step, local_size, machines):
    machine, local = divmod(rank, local_size)
    outgoing = step % local_size
    if local == outgoing:
        hop = 2 ** (step % (int(np.log2(machines - 1)) + 1))
        return [(machine + d) % machines * local_size + local for d in (hop, -hop)]
    hop = 2 ** (step % (int(np.log2(local_size - 2)) + 1))
    forward = hop + (hop >= (outgoing - local) % local_size)  # one more to skip the outgoing one
    backward = hop + (hop >= (local - outgoing) % local_size)
    return [machine * local_size + (local + d) % local_size for d in (forward, -backward)]


@pytest.mark.parametrize(("machines", "local_size"), MACHINES)
@pytest.mark.parametrize(
    ("make", "definition"),
    [(INNER_OUTER[0], ring_by_definition), (INNER_OUTER[1], exponential_by_definition)],
)
def test_inner_outer_by_definition(make, definition, machines, local_size):
    n = machines * local_size
    by_step = all_ranks(lambda rank: make(n, local_size, rank), n, 40)
    for step, rows in enumerate(by_step):
        for rank, lists in enumerate(rows):
            send, recv = definition(rank, step, local_size, machines)
            assert lists == ([send], [recv])
        w = averages(rows)
        assert abs(w.sum(axis=0) - 1).max() < 1e-15
        assert sorted(send for (send,), _ in rows) == list(range(n))


def test_inner_outer_exponential_is_not_exact_in_finite_time():
    make = GetInnerOuterExpo2DynamicSendRecvRanks
    by_step = all_ranks(lambda rank: make(128, 8, rank), 128, 60)
    assert product_error(by_step) == pytest.approx(3e-3, abs=2e-4)


@pytest.mark.parametrize("make", INNER_OUTER)
def test_inner_outer_on_one_machine(make):
    # The rank whose turn it is has no machine to go to; the others go on without it.
    by_step = all_ranks(lambda rank: make(5, 5, rank), 5, 20)
    for step, rows in enumerate(by_step):
        assert [rank for rank, lists in enumerate(rows) if lists == ([], [])] == [step % 5]
    assert product_error(by_step * 10) < 1e-9
    assert all_ranks(lambda rank: make(1, 1, rank), 1, 2) == [(([], []),)] * 2


def test_inner_outer_with_one_rank_per_machine():
    ring = all_ranks(lambda rank: GetInnerOuterRingDynamicSendRecvRanks(5, 1, rank), 5, 3)
    assert ring == [tuple(([(i + 1) % 5], [(i - 1) % 5]) for i in range(5))] * 3
    topo = ExponentialTwoGraph(6)
    for rank in range(6):
        expected = take(GetDynamicOnePeerSendRecvRanks(topo, rank), 9)
        assert take(GetInnerOuterExpo2DynamicSendRecvRanks(6, 1, rank), 9) == expected


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(local=st.integers(1, 12), hosts=st.integers(1, 12), step=st.integers(0, 10**9))
def test_rules_are_permutations_with_their_inverse(rule, local, hosts, step):
    n = local * hosts
    peers = [rule(rank, step, local, hosts) for rank in range(n)]
    assert sorted(peers) == list(range(n))
    assert [rule(peer, step, local, hosts, backward=True) for peer in peers] == list(range(n))
    outside = {rank for rank in range(n) if peers[rank] // local != rank // local}
    turn = {rank for rank in range(n) if rank % local == step % local}
    assert outside == (turn if hosts > 1 else set())
    alone = {rank for rank in range(n) if peers[rank] == rank}
    assert alone == (turn if hosts == 1 else set()) | (
        set(range(n)) - turn if local == 2 else set()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: INNER_OUTER[0](8, 2, 0), ValueError, "local_size must not be 2: .* never average"),
        (lambda: INNER_OUTER[1](8, 2, 0), ValueError, "local_size must not be 2"),
        (lambda: INNER_OUTER[0](10, 4, 0), ValueError, "world_size=10 .* local_size=4"),
        (lambda: INNER_OUTER[1](3, 4, 0), ValueError, "world_size=3 .* local_size=4"),
        (lambda: INNER_OUTER[0](12, 4, 12), ValueError, r"self_rank must be in 0\.\.11, got 12"),
        (lambda: INNER_OUTER[0](12, 4, -1), ValueError, "self_rank must be at least 0, got -1"),
        (lambda: INNER_OUTER[1](12, 0, 1), ValueError, "local_size must be at least 1, got 0"),
        (lambda: INNER_OUTER[1](0, 1, 0), ValueError, "at least 1 rank, got n=0"),
        (lambda: INNER_OUTER[1](12.0, 4, 0), TypeError, r"must be an int, not 12\.0"),
        (
            lambda: GetExp2DynamicSendRecvMachineRanks(12, 4, 6, 1),
            ValueError,
            "self_rank=6 has local_rank 2 on a machine of local_size=4, not 1",
        ),
        (
            lambda: GetExp2DynamicSendRecvMachineRanks(10, 4, 6, 2),
            ValueError,
            "world_size=10 ranks don't fill machines of local_size=4",
        ),
        (
            lambda: GetDynamicOnePeerSendRecvRanks(ExponentialTwoGraph(4), 4),
            ValueError,
            r"self_rank must be in 0\.\.3, got 4",
        ),
        (
            lambda: GetDynamicOnePeerSendRecvRanks(nx.DiGraph([(1, 2)]), 1),
            ValueError,
            r"ranks 0\.\.1; missing: 0; not a rank: 2",
        ),
        (lambda: GetDynamicOnePeerSendRecvRanks(None, 1), TypeError, "got NoneType"),
        (
            lambda: GetDynamicOnePeerSendRecvRanks(nx.cycle_graph(4), 1),
            TypeError,
            "got Graph",
        ),
    ],
)
def test_refused_when_called(call, error, message):
    with pytest.raises(error, match=message):
        call()
