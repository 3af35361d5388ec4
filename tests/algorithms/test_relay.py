"""RelaySGD: sums along a tree."""

import networkx as nx
import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, make, on_ranks, problem_for, simulated, step
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf
from bluefog_pg.topology import fingerprint


def chain(n):
    return bf.balanced_tree(n, branching=1)


def unweighted(n):
    """A binary tree whose root is rank 2, its edges in another order on each rank."""
    edges = [((i + 2) % n, (j + 2) % n) for i, j in bf.balanced_tree(n).edges if i != j]
    if dist.is_initialized():
        edges = edges[dist.get_rank() :] + edges[: dist.get_rank()]
    return nx.DiGraph(edges)


ROWS = [
    Row("relay_sgd", "balanced_tree"),
    Row("relay_sgd", unweighted),
    Row("relay_sgd", chain),
    Row("relay_sgd", "star"),
    Row("relay_sgd", chain, skips=((0, 2), (3, 2), (1, 9))),
]


@pytest.fixture(scope="module")
def iterates():
    return on_ranks(ROWS, nproc=6)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_follows_its_equation(iterates, row):
    np.testing.assert_allclose(iterates[row], simulated(row, 6), rtol=0, atol=1e-12)


def converge(rank, nproc):
    """Returns the error at the end of a run in which all ranks lose the exchanges of one step."""
    dist.init_process_group("bluefog")
    model, optimizer, _ = make(Row("relay_sgd", "balanced_tree", lr=0.2), rank, nproc, 25)
    (block,) = model._cycle.blocks
    for at in range(160):
        if at == 10:
            lose_one(model, optimizer)
        step(model, optimizer)
        if at == 1 or at >= 13:  # what has been heard of: from both sides of the root, 0, one rank
            model.settle()
            messages = [name for name in block.variables() if name.startswith("c")]
            heard_of = [block.scalars(name) for name in messages]
            assert heard_of == ([[1, 1], [1, 1]] if rank == 0 else [[2, 2]])
    return model.module.x().detach().numpy() - problem_for(nproc).optimum


def lose_one(model, optimizer):
    network = model._cycle.network
    wait = network.wait

    def fail(work):
        wait(work)
        raise RuntimeError("lost")

    step(model, optimizer)
    network.wait = fail
    with pytest.raises(RuntimeError, match="lost"):
        model.settle()
    network.wait = wait


def test_is_exact_and_recovers_from_a_lost_exchange():
    for error in run_ranks(converge, 3):
        np.testing.assert_allclose(error, 0, atol=1e-6)


def topologies(rank, nproc):
    dist.init_process_group("bluefog")

    def wrap(topology):
        bf.DecentralizedDataParallel(nn.Linear(2, 2), algorithm="relay_sgd", topology=topology)

    words = "relay_sgd needs a static tree"
    raises(ValueError, words, "make a cycle", call=lambda: wrap("ring"))
    raises(ValueError, words, "changes from step to step", call=lambda: wrap("base_graph"))
    raises(
        ValueError, words, "does not send to it", call=lambda: wrap(nx.DiGraph([(0, 1), (0, 2)]))
    )
    model = bf.DecentralizedDataParallel(nn.Linear(64, 64), algorithm="relay_sgd")
    assert fingerprint(model.topology) == fingerprint(bf.balanced_tree(nproc))
    (block,) = model._cycle.blocks
    model(torch.ones(64)).sum().backward()
    model.settle()
    # x, and a message to and from each neighbour; the rest is a number per parameter and turn.
    assert block.nbytes() // block["x"].nbytes == 1 + 2 * (2 if rank == 0 else 1)


def test_what_is_no_tree_is_refused():
    run_ranks(topologies, 3)
