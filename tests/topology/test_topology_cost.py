"""Links, degrees and times of rounds; analyze's tests have the sums over rounds."""

import json

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import Link, Links, ring, sparse_mixing_matrix, star
from bluefog_pg.topology.analysis.cost import allreduce_seconds, degrees, hosts_of, round_seconds
from bluefog_pg.topology.analysis.units import bytes_text, factor_text, seconds_text


def test_time_of_a_message():
    assert Link(latency=0.5, bandwidth=100).seconds(25) == 0.75


@pytest.mark.parametrize(
    ("latency", "bandwidth"), [(-1e-9, 1), (0, 0), (0, -1), (float("nan"), 1), (0, float("nan"))]
)
def test_links_that_cannot_be(latency, bandwidth):
    with pytest.raises(ValueError, match="latency of 0 s or more and a bandwidth above 0"):
        Link(latency, bandwidth)


def test_links_survive_json():
    links = Links(Link(1e-6, 2e9), Link(0.0, 1.5), hosts=(0, 0, 2))
    assert Links.from_dict(json.loads(json.dumps(links.to_dict()))) == links
    assert Links.from_dict(Links().to_dict()) == Links()


@pytest.mark.parametrize(
    "values", [{}, [], {"same_host": 3, "other_host": 3, "hosts": None}, {"same_host": {}}]
)
def test_other_json_is_refused(values):
    with pytest.raises(ValueError, match=r"not what Links\.to_dict\(\) returns"):
        Links.from_dict(values)


def test_degrees_count_edges_of_weight_zero_and_no_self_loops():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 0.0), (0, 2, 0.5), (0, 0, 1.0), (2, 2, 0.5), (1, 1, 1)])
    incoming, outgoing = degrees(sparse_mixing_matrix(graph))
    assert incoming.tolist() == [0, 1, 1]
    assert outgoing.tolist() == [2, 0, 0]


def test_a_rank_sends_one_after_the_other_and_receives_meanwhile():
    links = Links(Link(1, 1), Link(10, 1))
    everywhere = np.arange(5)
    center = round_seconds(sparse_mixing_matrix(star(5)), 2, links, everywhere)
    assert center == 4 * 12  # and receives four in the same time
    inward = nx.DiGraph([(i, 0) for i in range(1, 5)])
    assert round_seconds(sparse_mixing_matrix(inward), 2, links, everywhere) == 4 * 12
    assert round_seconds(sparse_mixing_matrix(ring(5, "left")), 2, links, everywhere) == 12
    assert round_seconds(sparse_mixing_matrix(ring(5)), 2, links, np.zeros(5)) == 6
    assert round_seconds(sparse_mixing_matrix(ring(1)), 2, links, np.zeros(1)) == 0


def test_ring_allreduce():
    links = Links(Link(1, 10), Link(2, 5))
    assert allreduce_seconds(100, links, [0, 0, 0, 0]) == 6 * (1 + 25 / 10)
    assert allreduce_seconds(100, links, [0, 0, 1, 1]) == 6 * (2 + 25 / 5)
    assert allreduce_seconds(100, links, [0]) == 0


def test_hosts():
    assert hosts_of(5, Links(), 2).tolist() == [0, 0, 1, 1, 2]
    assert hosts_of(3, Links()).tolist() == [0, 1, 2]
    assert hosts_of(3, Links(hosts=(7, 0, 7))).tolist() == [7, 0, 7]


def test_texts():
    assert [seconds_text(v) for v in (0, 2.5, 0.08005, 31e-6, 4e-9)] == [
        "0 s", "2.5 s", "80 ms", "31 us", "4.0e-09 s",
    ]  # fmt: skip
    assert [bytes_text(v) for v in (0, 999, 1000, 10**8, 2.5e9)] == [
        "0 bytes", "999 bytes", "1 kB", "100 MB", "2.5 GB",
    ]  # fmt: skip
    assert [factor_text(v) for v in (0, 0.217, 0.99985, 1, 1.5)] == [
        "0", "0.217", "1 - 0.00015", "1", "1.5",
    ]  # fmt: skip
