"""What holds for every topology in the registry, whatever it is."""

from itertools import islice

import pytest
from topology_rounds import assert_doubly_stochastic

from bluefog_pg.topology import Schedule, SizeError, get, names, rounds, validate

SIZES = [*range(1, 18), 25, 31, 32, 33, 60, 64]
NO_SELF_WEIGHT = {"de_bruijn"}  # most of its ranks give their own value no weight


def sizes_of(name):
    """(n, topology) for the sizes that it exists for."""
    for n in SIZES:
        try:
            yield n, get(name)(n)
        except SizeError as error:
            assert f"n={n}" in str(error)


def some_rounds(topology):
    """All of a period, or the first three of a schedule that never repeats."""
    unbounded = isinstance(topology, Schedule) and topology.period is None
    return islice(rounds(topology), 3 if unbounded else None)


@pytest.mark.parametrize("name", names())
def test_every_round_is_doubly_stochastic_with_float_weights(name):
    made = 0
    for n, topology in sizes_of(name):
        made += 1
        for graph in some_rounds(topology):
            assert list(graph) == list(range(n)), n
            assert all(type(i) is int for edge in graph.edges for i in edge), n
            assert all(type(w) is float and w > 0 for *_, w in graph.edges.data("weight")), n
            if name not in NO_SELF_WEIGHT:
                assert all(graph.has_edge(i, i) for i in graph), n
            assert_doubly_stochastic(graph, n)
    assert made >= 7  # the powers of two


@pytest.mark.parametrize("name", names())
def test_a_group_can_run_it(name):
    for n in (1, 2, 4, 8):
        validate(get(name)(n), n)


@pytest.mark.parametrize("name", names())
def test_one_rank_keeps_its_value(name):
    for graph in some_rounds(get(name)(1)):
        assert list(graph.edges.data("weight")) == [(0, 0, 1.0)]


@pytest.mark.parametrize("name", names())
def test_sizes_that_are_refused(name):
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"at least 1 rank, got n={n}"):
            get(name)(n)
    for n in (2.5, "4", None):
        with pytest.raises(TypeError, match=f"must be an int, not {n!r}"):
            get(name)(n)
