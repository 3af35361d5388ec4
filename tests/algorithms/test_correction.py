"""Exact diffusion, D2 and EXTRA: their equations, and the graphs that they refuse."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, make, on_ranks, problem_for, simulated, start_for, step
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf

CORRECTED = ("exact_diffusion", "d2", "extra")
ROWS = [
    *(Row(algorithm, topology) for algorithm in CORRECTED for topology in ("ring", "star")),
    *(Row(algorithm, "fully_connected", steps=1) for algorithm in CORRECTED),
]
ROWS_OF_6 = [Row(algorithm, "symmetric_exponential") for algorithm in CORRECTED]


@pytest.fixture(scope="module")
def iterates():
    return {4: on_ranks(ROWS, nproc=4), 6: on_ranks(ROWS_OF_6, nproc=6)}


@pytest.mark.parametrize(
    ("row", "nproc"), [*((row, 4) for row in ROWS), *((row, 6) for row in ROWS_OF_6)], ids=str
)
def test_follows_its_equation(iterates, row, nproc):
    np.testing.assert_allclose(iterates[nproc][row], simulated(row, nproc), rtol=0, atol=1e-12)


def test_first_step_on_a_complete_graph_is_a_centralized_one(iterates):
    x, problem = start_for(4), problem_for(4)
    descent = x - 0.05 * problem.gradient(x)
    expected = {
        "exact_diffusion": (descent + descent.mean(axis=0)) / 2,
        "d2": descent.mean(axis=0, keepdims=True),
        "extra": descent,
    }
    for algorithm, value in expected.items():
        x = iterates[4][Row(algorithm, "fully_connected", steps=1)][0]
        np.testing.assert_allclose(x, np.broadcast_to(value, x.shape), rtol=0, atol=1e-13)


def check_refusals(rank, nproc):
    dist.init_process_group("bluefog")
    model = nn.Linear(2, 1)
    for algorithm in CORRECTED:
        for topology, missing in (
            (bf.one_peer_exponential, ("changes from step to step", "a period of 2 steps")),
            (bf.exponential, ("not symmetric: rank 0 gives 0 to rank 1, which gives 0.333",)),
        ):
            raises(
                ValueError,
                f"{algorithm} needs a static graph with symmetric, doubly stochastic weights",
                *missing,
                call=lambda a=algorithm, t=topology: bf.DecentralizedDataParallel(
                    model, algorithm=a, topology=t
                ),
            )
        bf.DecentralizedDataParallel(model, algorithm=algorithm)  # its default is safe for it


def test_directed_and_changing_graphs_are_refused():
    run_ranks(check_refusals, 4)


def check_dropped_average(rank, nproc):
    dist.init_process_group("bluefog")
    model, optimizer, _ = make(Row("extra", "ring"), rank, nproc, cap_mb=1)
    step(model, optimizer)
    step(model, optimizer)
    (block,) = model._cycle.blocks
    before = block["c"].clone()
    loss = model()
    if rank == 0:
        with torch.no_grad():
            model.module.first.add_(1)
    with pytest.warns(UserWarning, match="which are dropped") if rank == 0 else nullcontext():
        loss.backward()
    assert torch.equal(block["c"], before) == (rank == 0)


def test_an_average_that_was_dropped_corrects_nothing():
    run_ranks(check_dropped_average, 2)
