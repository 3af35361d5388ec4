"""GossipGraD: gradients are averaged, before any optimizer."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, on_ranks, problem_for, simulated, start_for
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf

ROWS = {
    4: [
        Row("gossipgrad", "ring"),
        Row("gossipgrad", "fully_connected"),
        Row(
            "gossipgrad",
            "fully_connected",
            optimizer_options=(("momentum", 0.9), ("nesterov", True)),
        ),
    ],
    6: [Row("gossipgrad", "dissemination")],
}


@pytest.fixture(scope="module")
def iterates():
    return {nproc: on_ranks(rows, nproc) for nproc, rows in ROWS.items()}


@pytest.mark.parametrize(
    ("nproc", "row"),
    [(nproc, row) for nproc, rows in ROWS.items() for row in rows if not row.optimizer_options],
    ids=str,
)
def test_follows_its_equation(iterates, nproc, row):
    expected = simulated(row, nproc)
    np.testing.assert_allclose(iterates[nproc][row], expected, rtol=0, atol=1e-12)


def test_complete_graph_is_the_central_optimizer(iterates):
    row, problem = ROWS[4][-1], problem_for(4)
    x = torch.from_numpy(start_for(4)[0]).requires_grad_()
    optimizer = torch.optim.SGD([x], lr=row.lr, **dict(row.optimizer_options))
    for ours in iterates[4][row]:
        point = np.tile(x.detach().numpy(), (4, 1))
        x.grad = torch.from_numpy(problem.gradient(point).mean(axis=0))
        optimizer.step()
        np.testing.assert_allclose(ours, np.tile(x.detach(), (4, 1)), rtol=0, atol=1e-12)


class Two(nn.Module):
    """One of its layers is not used by every rank."""

    def __init__(self):
        super().__init__()
        self.always = nn.Parameter(torch.zeros(1024).double())
        self.sometimes = nn.Parameter(torch.zeros(1024).double())

    def forward(self, rank):
        y = (rank + 1) * self.always.sum()
        return y if rank else y + 4 * self.sometimes.sum()


def gradients(rank, nproc):
    dist.init_process_group("bluefog")
    model = bf.DecentralizedDataParallel(Two(), algorithm="gossipgrad", topology="fully_connected")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    always = (nproc + 1) / 2
    for set_to_none in (True, False, False, True):
        optimizer.zero_grad(set_to_none)
        with model.no_sync():  # gradients add up, and are averaged as the optimizer sees them
            model(rank).backward()
        model(rank).backward()
        optimizer.step()
        for p, mean in ((model.module.always, 2 * always), (model.module.sometimes, 8 / nproc)):
            assert torch.equal(p.grad, torch.full_like(p, mean))
    optimizer.zero_grad()
    (block,) = model._cycle.blocks
    assert block.nbytes() == 3 * 2048 * 8  # x, gradients, and what arrives

    # Where rank 0 does not step, the others get a gradient of 0 in the place of its own.
    before = model.module.always.detach().clone()
    model(rank).backward()
    if rank != 0:
        optimizer.step()
    model.settle()
    moved = before - model.module.always.detach()
    expected = 0 if rank == 0 else (always * nproc - 1) / nproc
    assert torch.equal(moved, torch.full_like(moved, expected))


def test_gradients_of_unused_parameters_and_of_skipped_steps():
    run_ranks(gradients, 4)
