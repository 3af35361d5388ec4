"""Ranks with different numbers of batches, in join()."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from serial import TOPOLOGIES, Script, expected, flat, statistics_of
from support import raises
from torch.distributed.algorithms.join import Join

import bluefog_pg as bf

ALGORITHMS = ["awc", "atc", "gradient_tracking"]
UNEVEN = Script(steps=8, batches=(3, 5, 8))
SCRIPTS = {"after": UNEVEN, "in backward": replace(UNEVEN, step_in_backward=True)}


def train_unevenly(rank, nproc):
    dist.init_process_group("bluefog")
    results = {}
    for algorithm, (name, script) in product(ALGORITHMS, SCRIPTS.items()):
        model = bf.DecentralizedDataParallel(
            script.net(rank),
            algorithm=algorithm,
            topology=TOPOLOGIES[algorithm],
            bucket_cap_mb=3e-4,
        )
        with Join([model]) if algorithm == "atc" else model.join():
            script.train(model, rank)
        net = model.module
        results[algorithm, name] = flat(net.parameters()), flat(statistics_of(net))
        assert model.statistics().steps == script.steps
    model.step_in_backward()

    # All is as before afterwards: ranks train together, and no step costs an all-reduce.
    loss = UNEVEN.loss(model, rank, 0, 0)
    before = results["gradient_tracking", "in backward"][0]
    loss.backward()
    assert not model._join_config.enable
    with model.join(enable=False):
        UNEVEN.loss(model, rank, 1, 0).backward()
    assert not torch.equal(flat(model.parameters()), before)

    two = [bf.DecentralizedDataParallel(UNEVEN.net(rank), topology="ring") for _ in range(2)]
    with Join(two):
        for step in range(rank + 1):
            for model in two:
                UNEVEN.loss(model, rank, step, 0).backward()
    assert [model.statistics().steps for model in two] == [nproc, nproc]

    raises(
        ValueError,
        "divide_by_initial_world_size=False",
        call=lambda: model.join(divide_by_initial_world_size=False),
    )
    with (
        pytest.raises(RuntimeError, match="exhausted"),
        model.join(throw_on_early_termination=True),
    ):
        for step in range(rank + 1):
            UNEVEN.loss(model, rank, step, 0).backward()
    return results


@pytest.fixture(scope="module")
def results():
    return run_ranks(train_unevenly, 3, timeout=120)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ranks_without_data_serve_their_neighbours(results, algorithm, name):
    for rank, wanted in enumerate(expected(UNEVEN, algorithm, 3)):
        got = results[rank][algorithm, name]
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
