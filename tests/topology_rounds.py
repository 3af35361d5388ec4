"""What the tests of schedules share: a round as a matrix, read straight from its edges."""

from functools import lru_cache

import numpy as np

from bluefog_pg.topology import rounds


@lru_cache(maxsize=32)
def matrix(graph):
    """W[receiver, sender] of a read-only graph all of whose edges have a weight; read-only too."""
    w = np.zeros((len(graph), len(graph)))
    sources, receivers, weights = zip(*graph.edges.data("weight"), strict=True)
    w[receivers, sources] = weights
    w.flags.writeable = False
    return w


def degrees(graph):
    """(largest out-degree, largest in-degree), self-loops not counted."""
    others = (matrix(graph) != 0) & ~np.eye(len(graph), dtype=bool)
    return others.sum(axis=0).max(), others.sum(axis=1).max()


def assert_doubly_stochastic(graph, note=""):
    w = matrix(graph)
    assert w.min() >= 0, note
    assert abs(w.sum(axis=0) - 1).max() <= 1e-14, note
    assert abs(w.sum(axis=1) - 1).max() <= 1e-14, note


def consensus_error(graphs, n, seed=0):
    """The largest |x_i - mean| after all graphs in turn, from a random x in (-1, 1)."""
    x = np.random.default_rng(seed).uniform(-1, 1, n)
    mean = x.mean()
    for graph in graphs:
        x = matrix(graph) @ x
    return abs(x - mean).max()


def period_error(schedule):
    return consensus_error(rounds(schedule), schedule.size)


def edges(graph):
    """{(source, destination): weight}, self-loops included."""
    return {(src, dst): weight for src, dst, weight in graph.edges.data("weight")}


def destination(graph, rank):
    """The one rank that `rank` sends to; itself if it sends to none."""
    others = [dst for dst in graph[rank] if dst != rank]
    assert len(others) <= 1
    return others[0] if others else rank
