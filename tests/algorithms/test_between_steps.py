"""Algorithms whose parameters are something else inside of a step than between steps."""

import networkx as nx
import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, iterate, make, problem_for, simulated, step
from ranks import run_ranks


def one_way(n):
    return nx.DiGraph([*((i, (i + 1) % n) for i in range(n)), (0, 2)])


ROWS = [
    Row("push_sum", one_way, steps=7),
    Row("push_diging", one_way, steps=7),
    Row("ceca", "ceca", method="dsgd_ceca", steps=7),  # sends z in step 1 of 2
]


def evaluate_and_fail(rank, nproc):
    dist.init_process_group("bluefog")
    return [(evaluations(row, rank, nproc), *before_and_after_failures(row, rank)) for row in ROWS]


def evaluations(row, rank, nproc):
    """f_rank at the parameters after each step, and the parameters that evaluation leaves."""
    model, optimizer, _ = make(row, rank, nproc, 6e-5)
    seen = []
    for _ in range(row.steps):
        step(model, optimizer)
        model.eval()
        with torch.no_grad():
            seen.append((model().item(), model.module.x().numpy()))
        model.train()
    return seen


def before_and_after_failures(row, rank, nproc=3):
    """The parameters before steps in which the exchange of x fails, and after them."""
    model, optimizer, _ = make(row, rank, nproc, 6e-5)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    step(model, optimizer)
    seen = [iterate(model)]
    network = model._cycle.network
    wait = network.wait

    def fail(work):
        wait(work)
        raise RuntimeError("lost")

    for _ in range(2):
        step(model, optimizer)
        network.wait = fail
        with pytest.raises(RuntimeError, match="lost"):
            model.eval()()
        network.wait = wait
        model.train()
        seen.append(iterate(model))
    return seen


@pytest.fixture(scope="module")
def results():
    return run_ranks(evaluate_and_fail, 3, timeout=240)


@pytest.mark.parametrize("at", range(len(ROWS)), ids=[str(row) for row in ROWS])
def test_evaluation_sees_what_the_equation_calls_the_iterate(results, at):
    problem = problem_for(3)
    for rank, result in enumerate(results):
        evaluations = result[at][0]
        for (value, x), expected in zip(evaluations, simulated(ROWS[at], 3)[:, rank], strict=True):
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12)
            there = np.tile(x, (3, 1))
            offset = -problem.gradient(0 * there)[rank]
            f = x @ problem.hessians[rank] @ x / 2 - offset @ x
            assert value == pytest.approx(f, rel=1e-10)


@pytest.mark.parametrize("at", range(len(ROWS)), ids=[str(row) for row in ROWS])
def test_a_failed_exchange_leaves_the_iterate(results, at):
    """With a learning rate of 0, and ranks that agree, nothing else changes it either."""
    for result in results:
        _, before, *after = result[at]
        for x in after:
            np.testing.assert_allclose(x, before, rtol=0, atol=1e-14)
