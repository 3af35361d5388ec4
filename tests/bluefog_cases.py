"""What the tests of BlueFog's API share: inputs, tolerances, and the matrices to compare with."""

import networkx as nx
import numpy as np
import torch

import bluefog_pg.torch as bf

SHAPES = [(), (5,), (3, 4), (2, 3, 4)]
UNIT = {
    torch.float64: 2.0**-52,
    torch.float32: 2.0**-23,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}


def x_of(rank, shape, dtype=torch.float64):
    """A tensor that differs between ranks, in [-1, 1] and exact in every dtype."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 5 + rank * 11) % 17 - 8).div(8).to(dtype).reshape(shape)


def mixed(row, shape, dtype=torch.float64):
    """sum_j row[j] x_j, in float64; row: weights by rank, a list or a dict."""
    pairs = row.items() if isinstance(row, dict) else enumerate(row)
    terms = [weight * x_of(rank, shape, dtype).double() for rank, weight in pairs]
    return sum(terms, torch.zeros(shape, dtype=torch.float64))


def assert_close(actual, expected, units=4):
    """Equal but for a few roundings of values up to 1 in actual's dtype."""
    assert actual.shape == expected.shape and not actual.requires_grad
    error = (actual.double() - expected.double()).abs().max().item() if actual.numel() else 0.0
    scale = max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
    assert error <= units * UNIT[actual.dtype] * scale, f"off by {error}: {actual}, {expected}"


def uniform_row(graph, rank):
    """The weights that BlueFog gives by default: 1 / (in-degree + 1)."""
    ranks = {rank, *graph.predecessors(rank)}
    return {source: 1 / len(ranks) for source in ranks}


def random_graph(n, seed):
    """A directed graph with weights of all signs and a self-loop at some ranks; every rank has
    another in-degree."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((n, n))
    for receiver in range(n):
        sources = generator.choice(n, size=1 + receiver % (n - 1), replace=False)
        weights[sources, receiver] = generator.uniform(-1, 1, len(sources))
    weights[0, n - 1] = weights[n - 1, 0] = 0.25
    return nx.from_numpy_array(weights, create_using=nx.DiGraph)


def started(local_size=None, graph=None, is_weighted=False):
    """Calls init; returns nothing, so that a test starts with a known topology."""
    bf.init(local_size=local_size)
    if graph is not None:
        assert bf.set_topology(graph, is_weighted=is_weighted) is True


def raises(kind, call, *words):
    """Asserts that the call raises this kind of error, with these words in its message."""
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
