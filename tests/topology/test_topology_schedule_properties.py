"""What holds for every schedule, of any size: valid rounds, equal on all ranks, in any order."""

import copy
import pickle
import random

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_rounds import assert_doubly_stochastic, degrees

from bluefog_pg.topology import (
    SizeError,
    base_graph,
    ceca,
    dissemination,
    equi_dyn,
    fingerprint,
    hierarchical_exponential,
    hyper_cuboid,
    inner_outer_exponential,
    inner_outer_ring,
    one_peer_exponential,
    one_peer_hypercube,
    random_matching,
)
from bluefog_pg.topology.draws import random_order, random_words

SEEDED = {
    "one_peer_exponential random": lambda n, seed: one_peer_exponential(n, "random", seed),
    "dissemination": dissemination,
    "equi_dyn directed": lambda n, seed: equi_dyn(n, True, seed),
    "equi_dyn undirected": lambda n, seed: equi_dyn(n, False, seed),
    "equi_dyn eta": lambda n, seed: equi_dyn(n, True, seed, eta=0.3),
    "random_matching": random_matching,
}
PLAIN = {
    "one_peer_exponential": one_peer_exponential,
    "one_peer_hypercube": one_peer_hypercube,
    "hyper_cuboid": hyper_cuboid,
    "hyper_cuboid 4": lambda n: hyper_cuboid(n, 4),
    "base_graph 1": base_graph,
    "base_graph 3": lambda n: base_graph(n, 3),
    "ceca 2P": ceca,
    "ceca 1P": lambda n: ceca(n, 1),
    "inner_outer_ring": inner_outer_ring,
    "inner_outer_exponential": inner_outer_exponential,
    "hierarchical_exponential": hierarchical_exponential,
}
ALL = {name: lambda n, seed, make=make: make(n) for name, make in PLAIN.items()} | SEEDED
DEGREES = {"base_graph 3": 3, "hyper_cuboid 4": 4}  # the others send one message
DENSE = ("hyper_cuboid", "hierarchical_exponential")  # by n

ranks = st.integers(1, 130)
seeds = st.integers(0, 2**70)
steps = st.lists(st.integers(0, 10**7), min_size=1, max_size=4)
bounded = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", ALL)
@bounded
@given(n=ranks, seed=seeds, steps=steps)
def test_every_round(name, n, seed, steps):
    try:
        one, other = (ALL[name](n, seed) for _ in range(2))
    except SizeError as error:
        assert f"n={n}" in str(error)
        return
    graphs = {step: one(step) for step in steps}
    for step in sorted(steps, reverse=True):
        graph = other(step)
        assert nx.utils.graphs_equal(graph, graphs[step])
        assert list(graph) == list(range(n))
        assert nx.is_frozen(graph)
        assert all(type(w) is float and w > 0 for *_, w in graph.edges.data("weight"))
        assert all(graph.has_edge(i, i) for i in graph)
        assert_doubly_stochastic(graph, (n, step))
        if name not in DENSE:
            assert max(degrees(graph)) <= DEGREES.get(name, 1)


@pytest.mark.parametrize("name", ALL)
def test_copies_and_pickles_give_the_same_rounds(name):
    schedule = ALL[name](16, 5)
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert repr(twin) == repr(schedule)
        assert nx.utils.graphs_equal(twin(7), schedule(7))


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_and_steps_differ(name):
    make, n = SEEDED[name], 33
    assert len({fingerprint(make(n, seed)) for seed in (0, 1, 2, 2**32, 2**64)}) == 5
    graphs = {frozenset(make(n, 0)(step).edges) for step in range(40)}
    assert len(graphs) >= (6 if name.startswith("one_peer") else 20)


@pytest.mark.parametrize("name", SEEDED)
def test_global_random_state_plays_no_part(name):
    expected = fingerprint(SEEDED[name](9, 3))
    random.seed(1)
    np.random.seed(1)
    assert fingerprint(SEEDED[name](9, 3)) == expected


def test_draws_do_not_change_between_releases():
    # Ranks of one job may run different builds. Recompute only with a reason in the changelog.
    assert random_words(3, 5, 2).tolist() == [2521179522643120239, 16302312124770738457]
    assert random_order(8, 3, 5) == [5, 0, 6, 3, 4, 1, 2, 7]
