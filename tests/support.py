"""What the tests of neighbor operations share: making the group, inputs, and the dense model."""

import os
import resource
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

import bluefog_pg
from bluefog_pg.topology import mixing_matrix

TRANSPORTS = ["shm", "tcp", "gloo", "mixed"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def start(transport="auto", timeout=60.0):
    """Makes the default group; short timeouts, in seconds, are for tests that run into them.

    "mixed": rank 1 may not have memory of the size, so that it is reached as if on another host.
    """
    warnings.filterwarnings("ignore", "the weights of rank")
    if transport == "mixed" and os.environ["RANK"] == "1":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    transport = "auto" if transport == "mixed" else transport
    options = bluefog_pg.BluefogOptions(transport=transport)
    dist.init_process_group("bluefog", timeout=timedelta(seconds=timeout), pg_options=options)


def store(prefix):
    """This test's store under a prefix: for a second default group, or for the ranks to talk."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.PrefixStore(prefix, dist.TCPStore(*address, is_master=False))


def attempt(function, *args, **kwargs):
    """Returns the exception that the call raises, or None."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error


def raises(kind, *words, call):
    """Asserts that call() raises exactly `kind` with a message that holds all words, in order."""
    error = attempt(call)
    assert type(error) is kind, f"expected {kind.__name__}, got {error!r}"
    text, at = str(error), 0
    for word in words:
        at = text.find(word, at)
        assert at >= 0, f"{word!r} is not (or out of order) in: {text}"
    assert "frame #" not in text, f"a C++ backtrace is no message: {text}"


def value_of(rank, shape, dtype=torch.float32):
    """A tensor of whole numbers below 251, which every dtype holds exactly."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 3 + rank * 37) % 251).to(dtype).reshape(shape)


def exact_weights(graph):
    """The same edges with weights that are powers of two and differ between neighbours."""
    for source, rank, edge in graph.edges(data=True):
        edge["weight"] = 2.0 ** -(1 + (source + 2 * rank) % 4)
    return graph


def dense(graph, rank, shape, dtype=torch.float32):
    """Row `rank` of W @ X in float64, where row j of X is value_of(j), rounded once to dtype."""
    row = mixing_matrix(graph)[rank]
    xs = [value_of(j, shape, torch.float64) for j in range(len(row))]
    return sum(w * x for w, x in zip(row, xs, strict=True)).to(dtype)


def assert_same(actual, expected):
    """Equal values, shape and dtype."""
    if not (actual.dtype == expected.dtype and torch.equal(actual, expected)):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)  # says where


def averages(rank, n, group=None):
    """Sets a topology in the group, whose rank and size these are, and averages over it."""
    bluefog_pg.set_topology(exact_weights(bluefog_pg.ring(n)), group=group)
    y = bluefog_pg.neighbor_allreduce(value_of(rank, (3, 4)), group=group)
    assert_same(y, dense(bluefog_pg.get_topology(group), rank, (3, 4)))
