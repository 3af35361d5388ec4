"""choose and auto: the rule that the literature gives, hosts, links, restrictions, refusals."""

import json
import math

import networkx as nx
import pytest

from bluefog_pg.topology import (
    CecaSchedule,
    Link,
    Links,
    Schedule,
    analyze,
    auto,
    choose,
    fingerprint,
    get,
    is_doubly_stochastic,
    one_peer_exponential,
    problems,
    require_safe,
    rounds,
)


def chosen(n, **options):
    return str(choose(n, **options).candidates[0])


@pytest.mark.parametrize("n", [2, 4, 8, 32, 64])
def test_powers_of_two_take_one_peer_exponential(n):
    for extra_copy in (False, True):
        assert chosen(n, extra_copy=extra_copy) == "one_peer_exponential"


@pytest.mark.parametrize("n", [3, 5, 6, 7, 11, 12, 17, 33])
def test_with_a_second_copy_of_the_model_ceca(n):
    choice = choose(n, extra_copy=True)
    assert isinstance(choice.topology, CecaSchedule)
    assert choice.candidates[0].steps == math.ceil(math.log2(n))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        # {2, 3}-smooth: degrees 1 and 2, and no more messages than any.
        (6, "hyper_cuboid"),
        (12, "hyper_cuboid"),
        (36, "hyper_cuboid"),
        (5, "base_graph(k=1)"),
        (17, "base_graph(k=1)"),
        (33, "base_graph(k=1)"),
        (130, "base_graph(k=1)"),
    ],
)
def test_a_single_copy_takes_an_exact_symmetric_schedule(n, expected):
    for symmetric in (False, True):
        assert chosen(n, symmetric=symmetric) == expected
    assert analyze(auto(n)).symmetric


def test_degree_one_only():
    assert chosen(12, max_degree=1) == "base_graph(k=1)"
    assert choose(12, max_degree=1).left_out["hyper_cuboid"] == (
        "sends 2 messages a step, above max_degree=1"
    )


def test_hosts_make_the_cube_better_than_the_ring_of_shifts():
    # Two of three hops of the cube stay on a host of four; each shift has pairs that do not.
    assert chosen(8) == "one_peer_exponential"
    choice = choose(8, ranks_per_host=4)
    assert str(choice.candidates[0]) == "one_peer_hypercube"
    seconds = {str(c): c.seconds for c in choice.candidates}
    near, far = Links().same_host.seconds(10**8), Links().other_host.seconds(10**8)
    assert seconds["one_peer_hypercube"] == pytest.approx(2 * near + far)
    assert seconds["one_peer_exponential"] == pytest.approx(3 * far)


def test_measured_hosts_may_be_interleaved():
    # Ranks 0, 2, 4, 6 share a host: now the flip of the lowest bit is the one that leaves it.
    links = Links(hosts=(0, 1) * 4)
    choice = choose(8, links=links)
    near, far = links.same_host.seconds(10**8), links.other_host.seconds(10**8)
    assert choice.candidates[0].seconds == pytest.approx(2 * near + far)
    assert "on 2 hosts" in choice.explanation


def test_equally_fast_links_make_hosts_irrelevant():
    links = Links(Link(1e-5, 1e9), Link(1e-5, 1e9))
    assert chosen(8, ranks_per_host=4, links=links) == "one_peer_exponential"
    assert choose(8, links=links).candidates[0].seconds == pytest.approx(3 * (1e-5 + 0.1))


@pytest.mark.parametrize("algorithm", ["d2", "exact_diffusion", "gradient_tracking", "ceca"])
def test_only_what_an_algorithm_is_safe_with(algorithm):
    choice = choose(12, algorithm=algorithm, extra_copy=True, max_degree=4)
    require_safe(algorithm, choice.topology)
    if algorithm == "d2":
        assert isinstance(choice.topology, nx.DiGraph)
        assert "changes from step to step" in choice.left_out["hyper_cuboid"]


def test_static_graphs_are_compared_by_steps_to_a_thousandth():
    choice = choose(16, algorithm="exact_diffusion", max_degree=7)
    for candidate in choice.candidates:
        rate = analyze(get(candidate.name)(16)).rate
        assert not candidate.exact
        assert rate**candidate.steps <= 1e-3 < rate ** (candidate.steps - 1)
    times = [candidate.seconds for candidate in choice.candidates]
    assert times == sorted(times)


def test_explanation_is_one_paragraph_with_numbers():
    choice = choose(6, message_bytes=4_000_000)
    assert choice.explanation == (
        "hyper_cuboid for 6 ranks on 6 hosts and messages of 4 MB: the exact average in 2 steps, "
        "with at most 2 messages per rank and step; a step is predicted to take 4.88 ms, together "
        "9.75 ms (a ring all-reduce, exact, 5.83 ms). Next best: base_graph(k=2), the exact "
        "average in 2 steps, 9.75 ms; base_graph(k=1), the exact average in 4 steps, 13 ms; "
        "one_peer_exponential, a thousandth of the disagreement in 14 steps, 45.5 ms."
    )


def test_what_was_left_out_says_why():
    left_out = choose(6).left_out
    assert left_out["ceca"].startswith("keeps a second copy of the model")
    assert "power" in left_out["one_peer_hypercube"]
    assert "3 messages" in left_out["exponential"]
    assert "weights are not symmetric" in choose(6, symmetric=True).left_out["one_peer_exponential"]


def test_json():
    choice = choose(12)
    best = json.loads(json.dumps(choice.to_dict()))["candidates"][0]
    made = get(best["name"])(12, **best["arguments"])
    assert fingerprint(made) == fingerprint(choice.topology)


@pytest.mark.parametrize("n", [*range(1, 18), 33, 48])
def test_auto_averages_as_it_is(n):
    topology = auto(n)
    assert not isinstance(topology, CecaSchedule)
    assert problems(topology) == []
    assert analyze(topology).exact_after is not None
    assert all(is_doubly_stochastic(graph, atol=1e-14) for graph in rounds(topology))


def test_auto_is_choose():
    assert isinstance(auto(5, extra_copy=True), CecaSchedule)
    assert fingerprint(auto(8)) == fingerprint(one_peer_exponential(8))
    assert isinstance(auto(8, algorithm="d2", max_degree=3), nx.DiGraph)
    assert isinstance(get("auto")(9), Schedule)


def test_random_shifts_are_considered_where_they_can_win():
    assert not any(c.name == "equi_dyn" for c in choose(9).candidates)
    (equi_dyn,) = (c for c in choose(517).candidates if c.name == "equi_dyn")
    assert not equi_dyn.exact
    assert equi_dyn.steps == 20  # ln 1000 / ln sqrt(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: choose(0), ValueError, "at least 1 rank, got n=0"),
        (lambda: choose(2.5), TypeError, r"must be an int, not 2\.5"),
        (lambda: choose(8, max_degree=0), ValueError, "max_degree must be at least 1, got 0"),
        (lambda: choose(8, ranks_per_host=0), ValueError, "ranks_per_host must be at least 1"),
        (lambda: choose(8, algorithm="adam"), ValueError, "unknown algorithm 'adam'"),
        (lambda: choose(8, links=Links(hosts=(0, 0))), ValueError, "2 ranks, not n=8"),
        (
            lambda: choose(8, algorithm="d2", max_degree=1),
            ValueError,
            r"no topology for n=8 fits: one_peer_exponential: d2 needs .*; ring: sends 2 messages",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
