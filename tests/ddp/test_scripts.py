"""What real training scripts do, against the same script in one process with explicit matrices."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from serial import TOPOLOGIES, Script, expected, flat, statistics_of

import bluefog_pg as bf

NPROC = 4
ALGORITHMS = ["awc", "atc", "gradient_tracking"]
ACCUMULATED = Script(micro_batches=3, clip=2.0)
SCALED = Script(infinities={2: 1}, steps=4)
SCRIPTS = {
    "plain": Script(),
    "accumulated and clipped": ACCUMULATED,
    "two optimizers": replace(ACCUMULATED, split_optimizers=True),
    "recomputed": replace(ACCUMULATED, recompute="yes"),
    "recomputed, reentrant": replace(ACCUMULATED, recompute="reentrant"),
    "autocast": Script(dtype=torch.float32, autocast=True, steps=2),
    "one decides": replace(SCALED, scaler=lambda: torch.amp.GradScaler("cpu")),
    "all decide": replace(SCALED, scaler=lambda: bf.GradScaler()),
}


def wrap(net, algorithm):
    """In several blocks."""
    return bf.DecentralizedDataParallel(
        net, algorithm=algorithm, topology=TOPOLOGIES[algorithm], bucket_cap_mb=3e-4
    )


def run_all(rank, nproc):
    """All scripts with all algorithms, each with a model of its own, in one process group."""
    dist.init_process_group("bluefog")
    results = {}
    for name, script in SCRIPTS.items():
        for algorithm in ALGORITHMS:
            model = wrap(script.net(seed=rank), algorithm)
            script.train(model, rank).settle()
            used = model.statistics()
            net = model.module
            results[name, algorithm] = flat(net.parameters()), flat(statistics_of(net)), used
    return results


@pytest.fixture(scope="module")
def results():
    return run_ranks(run_all, NPROC, timeout=200)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_does_what_one_process_does(results, name, algorithm):
    script = SCRIPTS[name]
    tolerance = 2e-3 if script.autocast else 1e-12
    wanted = expected(script, algorithm, NPROC, everybody_skips=name == "all decide")
    assert not torch.equal(wanted[0][0], wanted[1][0])
    for rank, (x, buffers) in enumerate(wanted):
        got_x, got_buffers, used = results[rank][name, algorithm]
        torch.testing.assert_close(got_x, x, rtol=0, atol=tolerance)
        torch.testing.assert_close(got_buffers, buffers, rtol=0, atol=tolerance)
        assert used.steps == script.steps


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_accumulation_exchanges_once(results, algorithm):
    plain, accumulated = (
        results[0][name, algorithm][2] for name in ("plain", "accumulated and clipped")
    )
    assert accumulated.exchanges == plain.exchanges > 0
    assert accumulated.bytes_sent == plain.bytes_sent > 0
