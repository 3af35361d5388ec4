"""analyze: each field against a value worked out by hand, or one of the papers'."""

import json
import math
import time

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    Analysis,
    Link,
    Links,
    Schedule,
    SizeError,
    analyze,
    base_graph,
    ceca,
    consensus_rate,
    de_bruijn,
    dissemination,
    equi_dyn,
    exponential,
    get,
    is_doubly_stochastic,
    mixing_matrix,
    names,
    one_peer_exponential,
    one_peer_hypercube,
    random_matching,
    ring,
    rounds,
    star,
)


def test_static_graph():
    a = analyze(exponential(16))
    assert (a.size, a.period, a.rounds) == (16, 1, 1)
    assert a.row_stochastic and a.column_stochastic and a.strongly_connected and not a.symmetric
    assert (a.in_degree, a.out_degree) == (4, 4)
    assert a.residual == a.rate == pytest.approx(0.6)
    assert a.spectral_gap == pytest.approx(0.4)
    assert a.exact_after is None and not a.exact
    assert analyze(ring(9)).symmetric


def test_schedule_that_is_not_exact():
    a = analyze(one_peer_exponential(6))
    assert (a.period, a.rounds, a.in_degree, a.out_degree) == (3, 3, 1, 1)
    assert a.residual == pytest.approx(0.217, abs=6e-4)
    assert a.rate == pytest.approx(a.residual ** (1 / 3))
    assert a.spectral_gap is None and a.exact_after is None


@pytest.mark.parametrize(
    ("topology", "count"),
    [
        (one_peer_exponential(64), 6),
        (one_peer_hypercube(8), 3),
        (base_graph(17), 9),
        (base_graph(300, 2), 9),
        (de_bruijn(64), 6),
        (one_peer_exponential(16, order="random"), 4),
        (dissemination(8), 3),
        (ring(3), 1),
        (ring(1), 0),
    ],
    ids=repr,
)
def test_exact_topologies(topology, count):
    a = analyze(topology)
    assert (a.exact_after, a.rate, a.exact) == (count, 0, True)
    if a.rounds >= count:
        assert a.residual < 1e-14


@pytest.mark.parametrize("n", [*range(1, 40), 130, 300])
def test_ceca_is_exact_in_x_after_the_fewest_rounds(n):
    for variant in (1, 2):
        if variant == 1 and n % 2 and n > 1:
            continue
        a = analyze(ceca(n, variant))
        assert a.exact_after == math.ceil(math.log2(n))
        assert a.residual < 1e-14
        assert a.in_degree == a.out_degree == (n > 1)


def test_a_de_bruijn_graph_has_no_gap_and_is_exact_all_the_same():
    a = analyze(de_bruijn(16))
    assert a.spectral_gap == pytest.approx(0, abs=1e-12)  # its norm is 1: it is not normal
    assert a.exact_after == 4


def test_64_rounds_stand_for_a_schedule_that_never_repeats():
    a = analyze(equi_dyn(300))
    assert (a.period, a.rounds) == (None, 64)
    assert a.rate == pytest.approx(math.sqrt(0.5), abs=0.03)  # the papers' sqrt((1 - 1/n)/2)
    assert a.residual == pytest.approx(a.rate**64)
    product = np.eye(300)
    for graph in rounds(equi_dyn(300)):
        product = mixing_matrix(graph) @ product
    assert a.residual == pytest.approx(np.linalg.norm(product - 1 / 300, ord=2), rel=1e-4)


@pytest.mark.parametrize("schedule", [equi_dyn(8), random_matching(8)], ids=repr)
def test_luck_does_not_make_a_random_schedule_exact(schedule):
    a = analyze(schedule)
    assert a.residual < 1e-14  # these draws do meet the average, once
    assert a.exact_after is None
    assert a.rate == pytest.approx(math.sqrt(6 / 14))  # sqrt((n-2) / (2(n-1)))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("n", [1, 2, 3, 5, 12])
def test_every_registered_topology(name, n):
    try:
        topology = get(name)(n)
    except SizeError:
        return
    a = analyze(topology)
    graphs = list(rounds(topology))
    doubly = all(map(is_doubly_stochastic, graphs))
    assert (a.row_stochastic and a.column_stochastic) == doubly
    assert a.symmetric == all(np.allclose(w, w.T) for w in map(mixing_matrix, graphs))
    union = nx.compose_all(map(nx.DiGraph, graphs))
    assert a.strongly_connected == nx.is_strongly_connected(union)
    loops = [graph.copy() for graph in graphs]
    for graph in loops:
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    assert a.in_degree == max(d for graph in loops for _, d in graph.in_degree)
    assert a.out_degree == max(d for graph in loops for _, d in graph.out_degree)
    if a.period == 1:
        assert a.residual == pytest.approx(consensus_rate(graphs[0]), abs=1e-12)
    assert json.loads(json.dumps(a.to_dict()))["size"] == n
    assert set(a.to_dict()) == set(Analysis.__dataclass_fields__)


def one_sided():
    """Rank 0 gives 1/2 to rank 1's value, and no weights sum to 1 but rank 1's."""
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 0, 0.25), (1, 0, 0.5), (1, 1, 1.0)])
    return graph


def test_weights_that_do_not_sum_to_one():
    a = analyze(one_sided())
    assert not (a.row_stochastic or a.column_stochastic or a.symmetric or a.strongly_connected)
    assert a.residual == pytest.approx(np.linalg.norm([[-0.25, 0], [-0.5, 0.5]], ord=2))
    columns = one_sided().reverse()
    columns[0][0]["weight"] = 0.5
    assert analyze(columns).column_stochastic and not analyze(columns).row_stochastic


def test_bytes_against_ring_allreduce():
    for n, degree in ((2, 1), (8, 3), (1000, 10)):
        a = analyze(exponential(n), message_bytes=1000)
        assert a.bytes_per_step == degree * 1000
        assert a.allreduce_ratio == pytest.approx(degree * 1000 / (2 * (n - 1) / n * 1000))
    assert analyze(star(5), message_bytes=10).bytes_per_step == 40  # the center's
    # Rounds with 1 and with 2 messages: 1.5 in the mean.
    mixed = Schedule.from_graphs([ring(4, "left"), ring(4)])
    assert analyze(mixed, message_bytes=10).bytes_per_step == 15
    alone = analyze(ring(1))
    assert (alone.bytes_per_step, alone.allreduce_ratio, alone.allreduce_seconds) == (0, 0, 0)


def test_time_of_a_step():
    links = Links(same_host=Link(1e-6, 1e9), other_host=Link(1e-3, 1e6))
    near, far = 1e-6 + 1e-6, 1e-3 + 1e-3  # of 1000 bytes
    kwargs = {"message_bytes": 1000, "links": links}
    assert analyze(ring(4), **kwargs).seconds_per_step == pytest.approx(2 * far)
    assert analyze(ring(4), ranks_per_host=4, **kwargs).seconds_per_step == pytest.approx(2 * near)
    # With two hosts each rank has one neighbour on each.
    split = analyze(ring(4), ranks_per_host=2, **kwargs)
    assert split.seconds_per_step == pytest.approx(near + far)
    # Flips of bit 0 stay on a host of two, flips of bit 1 do not.
    cube = analyze(one_peer_hypercube(4), ranks_per_host=2, **kwargs)
    assert cube.seconds_per_step == pytest.approx((near + far) / 2)
    # 2(n-1) messages of S/n, over the slow link.
    assert split.allreduce_seconds == pytest.approx(6 * (1e-3 + 250e-6))


def test_hosts_come_from_the_links_that_were_measured():
    links = Links(Link(1e-6, 1e9), Link(1e-3, 1e6), hosts=(0, 1, 0, 1))
    inside = nx.DiGraph([(0, 2), (2, 0), (1, 3), (3, 1)])
    measured = analyze(inside, message_bytes=1000, links=links)
    assert measured.seconds_per_step == pytest.approx(2e-6)
    assumed = analyze(inside, message_bytes=1000, links=links, ranks_per_host=2)
    assert assumed.seconds_per_step == pytest.approx(2e-3)
    with pytest.raises(ValueError, match="measured between 4 ranks, not n=5"):
        analyze(ring(5), links=links)
    with pytest.raises(ValueError, match="ranks_per_host must be at least 1, got 0"):
        analyze(ring(4), ranks_per_host=0)


def test_16384_ranks():
    graph = exponential(16384)
    start = time.process_time()
    a = analyze(graph)
    seconds = time.process_time() - start
    assert a.spectral_gap == pytest.approx(2 / 15, rel=1e-10)
    assert a.strongly_connected and a.in_degree == 14 and "d2" in a.refused
    assert seconds < 5, "about 0.5 s on an idle core"


@pytest.mark.parametrize(
    ("topology", "error", "message"),
    [
        (nx.cycle_graph(4), TypeError, r"got Graph; .*to_directed\(\)"),
        (nx.DiGraph(), ValueError, "at least 1 rank, got n=0"),
        (nx.DiGraph([(0, 5)]), ValueError, "missing: 1; not a rank: 5"),
        (nx.DiGraph([(0, 1, {"weight": math.nan})]), ValueError, r"edge \(0, 1\) is nan"),
    ],
)
def test_refused(topology, error, message):
    with pytest.raises(error, match=message):
        analyze(topology)
