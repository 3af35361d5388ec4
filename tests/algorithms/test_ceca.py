"""DSGD-CECA: gradients where it sends, two variables in the memory of three."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, on_ranks, simulated
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf


def one_port(n):
    return bf.ceca(n, variant=1)


SKIPS = ((0, 1), (3, 1), (1, 2))  # n - 1 = 5 = 101 in binary: step 1 sends z
ROWS = {
    6: [
        Row("ceca", "ceca", method="dsgd_ceca"),
        Row("ceca", one_port, method="dsgd_ceca"),
        Row("ceca", "ceca", method="dsgd_ceca", skips=SKIPS),
    ],
    12: [Row("ceca", "ceca", method="dsgd_ceca", steps=9)],
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


class Sum(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.x = nn.Parameter(torch.full((1024,), float(rank)).double())

    def forward(self):
        return self.x.sum()


def exact_average(rank, nproc):
    dist.init_process_group("bluefog")
    model = bf.DecentralizedDataParallel(Sum(rank), algorithm="ceca", init_sync=False)
    assert isinstance(model.topology, bf.topology.CecaSchedule)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(3):
        model().backward()
        optimizer.step()
    model.settle()
    torch.testing.assert_close(
        model.module.x.detach(), torch.full((1024,), (nproc - 1) / 2).double(), rtol=1e-15, atol=0
    )
    (block,) = model._cycle.blocks
    assert block.nbytes() == 3 * 1024 * 8  # x, z, and what arrives

    words = "ceca needs a CecaSchedule", "bluefog_pg.topology.ceca(n)"
    for topology in ("ring", "one_peer_exponential"):
        raises(
            ValueError,
            *words,
            call=lambda topology=topology: bf.DecentralizedDataParallel(
                Sum(rank), algorithm="ceca", topology=topology
            ),
        )


def test_exact_average_in_three_steps_of_six_ranks():
    run_ranks(exact_average, 6)
