"""DecentralizedDataParallel.finalize: the exact average, in place."""

import warnings

import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def train_and_finalize(rank, nproc):
    dist.init_process_group("bluefog")
    results = []
    for algorithm in ("awc", "atc", "gradient_tracking"):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).bfloat16())
        module[0].requires_grad_(algorithm != "awc")  # frozen ones are averaged too
        model = bf.DecentralizedDataParallel(module, algorithm=algorithm, topology="ring")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(rank=rank, module=module, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                model(torch.randn(8, 4) + rank).square().mean().backward()
            optimizer.step()

        torch.manual_seed(rank + 1)
        for _ in range(3):
            step()  # atc leaves an exchange under way
        model.settle()
        before = state(module)
        model.finalize()
        after = state(module)
        assert model.consensus_distance() == 0
        with model.averaged():
            assert all(torch.equal(after[name], value) for name, value in state(module).items())
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # training may go on, and meets nothing unexpected
            step()
            model.settle()
        assert model.consensus_distance() > 0
        results.append((before, after))
    return results


def test_finalize_puts_the_exact_average_in_place():
    by_rank = run_ranks(train_and_finalize, 3, timeout=120)
    for runs in zip(*by_rank, strict=True):
        befores, afters = zip(*runs, strict=True)
        for name, first in afters[0].items():
            assert all(torch.equal(after[name], first) for after in afters), name
            values = torch.stack([before[name].double() for before in befores])
            tolerance = {torch.bfloat16: 2**-8, torch.float32: 2**-22, torch.int64: 0}[first.dtype]
            torch.testing.assert_close(first.double(), values.mean(0), rtol=tolerance, atol=1e-7)
        assert not torch.equal(befores[0]["1.running_mean"], befores[1]["1.running_mean"])
