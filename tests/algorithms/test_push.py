"""Push-sum, Push-DIGing and Push-Pull, on graphs whose weights are not doubly stochastic."""

import warnings
from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, on_ranks, problem_for, simulated, start_for
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf
from bluefog_pg.topology import column_stochastic

NAMES = ("push_sum", "push_diging", "push_pull")


def one_way(n):
    """Without weights; one or two ways out of a rank, one to three into it."""
    return nx.DiGraph([*((i, (i + 1) % n) for i in range(n)), (0, 2), (n - 1, 2)])


def turning(n):
    """Each way in turn."""
    return bf.Schedule.from_graphs([one_way(n), one_way(n).reverse()], name="turning")


def columns(n):
    """Weights of which only those given to one rank's value sum to 1."""
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((i, (i + 1) % n, 0.25) for i in range(n))
    graph.add_weighted_edges_from((i, i, 0.75) for i in range(1, n))
    graph.add_weighted_edges_from([(0, 0, 0.375), (0, 2, 0.375)])
    return graph


def rows(n):
    """Weights of which only those that one rank applies sum to 1."""
    return columns(n).reverse()


ROWS = {
    4: [
        *(Row(name, graph) for name in NAMES for graph in (one_way, "one_peer_exponential")),
        *(Row(name, "fully_connected") for name in NAMES),
        Row("push_sum", columns),
        Row("push_diging", columns),
        Row("push_pull", rows),
        Row("push_sum", one_way, skips=((0, 3), (2, 3), (1, 7))),
    ],
    6: [Row(name, turning) for name in NAMES],
}


@pytest.fixture(scope="module")
def iterates():
    return {nproc: on_ranks(rows, nproc) for nproc, rows in ROWS.items()}


@pytest.mark.parametrize(
    ("nproc", "row"), [(nproc, row) for nproc, rows in ROWS.items() for row in rows], ids=str
)
def test_follows_its_equation(iterates, nproc, row):
    expected = simulated(row, nproc)
    np.testing.assert_allclose(iterates[nproc][row], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_complete_graph_is_gradient_descent(iterates, name):
    row = Row(name, "fully_connected")
    problem, x = problem_for(4), start_for(4)
    for ours in iterates[4][row]:
        x = x - row.lr * problem.gradient(x).mean(axis=0)
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-12)


def weights_and_buffers(rank, nproc):
    warnings.simplefilter("error")  # a column-stochastic graph is what push-sum wants
    dist.init_process_group("bluefog")

    def wrap(module, algorithm, topology):
        return bf.DecentralizedDataParallel(module, algorithm=algorithm, topology=topology)

    pairs = nx.DiGraph([(0, 1), (1, 0), (2, 3), (3, 2)])
    for name, topology, *words in (
        ("push_sum", rows(nproc), "column-stochastic", "column_stochastic(topology)", "rank 0: "),
        ("push_diging", rows(nproc), "column-stochastic", "rank 0: "),
        ("push_pull", columns(nproc), "row-stochastic", "rank 0: "),
        ("push_sum", pairs, "no path leads from rank 0"),
        ("push_pull", pairs, "no path leads from rank 0"),
    ):
        attempt = partial(wrap, nn.Linear(2, 2), name, topology)
        raises(ValueError, f"{name} needs", *words, call=attempt)
    wrap(nn.Linear(2, 2), "push_sum", column_stochastic(rows(nproc)))

    norm = nn.BatchNorm1d(1, momentum=0.0).double()
    for name in NAMES:  # equal statistics stay equal, which a column-stochastic C alters
        norm.running_mean.fill_(3.0)
        model = wrap(norm, name, rows(nproc) if name == "push_pull" else columns(nproc))
        for _ in range(2):
            model(torch.tensor([[1.0], [2.0]]).double()).sum().backward()
            model.settle()
        assert norm.running_mean.item() == pytest.approx(3.0, abs=1e-15)


def test_weights_and_buffers():
    run_ranks(weights_and_buffers, 4)


def average_without_gradients(rank, nproc):
    """Ranks with a gradient of 0: push-sum agrees on the mean of where they start."""
    dist.init_process_group("bluefog")
    x = nn.ParameterList([torch.full((3,), 4.0**rank).double(), torch.full((2,), rank).double()])
    model = bf.DecentralizedDataParallel(
        Zero(x), algorithm="push_sum", topology=turning(nproc), init_sync=False, bucket_cap_mb=1e-5
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
    model.settle()
    means = [sum(4.0**r for r in range(nproc)) / nproc, sum(range(nproc)) / nproc]
    for parameter, mean in zip(x, means, strict=True):
        torch.testing.assert_close(parameter, torch.full_like(parameter, mean), rtol=1e-10, atol=0)


class Zero(nn.Module):
    def __init__(self, parameters):
        super().__init__()
        self.x = parameters

    def forward(self):
        return sum(0 * parameter.sum() for parameter in self.x)


def test_push_sum_agrees_on_the_mean():
    run_ranks(average_without_gradients, 4)
