"""Models and loops that are not a plain forward, backward, step."""

from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf

ALGORITHMS = ["awc", "atc", "gradient_tracking"]


def wrap(net, algorithm="awc", **keywords):
    return bf.DecentralizedDataParallel(net, algorithm=algorithm, topology="ring", **keywords)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def train(model, rank, steps=3, loss=lambda model, x: model(x).square().mean()):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        generator = torch.Generator().manual_seed(10 * step + rank)
        optimizer.zero_grad()
        loss(model, torch.randn(6, 4, generator=generator)).backward()
        optimizer.step()
    model.settle()
    return flat(model)


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def sparse_gradients(rank, nproc):
    """Averaged where parameters are, refused where gradients are, and the group goes on."""

    def words(model, x):
        return model(x.abs().long()).square().mean()

    def table(sparse):
        torch.manual_seed(0)
        return nn.Embedding(9, 3, sparse=sparse)

    for algorithm in ("awc", "atc"):
        dense, sparse = (
            train(wrap(table(kind), algorithm), rank, loss=words) for kind in (False, True)
        )
        torch.testing.assert_close(dense, sparse)
    refused = wrap(table(sparse=True), "gradient_tracking")
    with pytest.raises(NotImplementedError, match=r"shape \(9, 3\) has a sparse gradient"):
        train(refused, rank, loss=words)
    train(wrap(mlp()), rank)


@dataclass
class Output:
    y: torch.Tensor
    hidden: list


class Custom:
    """An output whose tensors nobody can find."""

    def __init__(self, y):
        self.y = y


class Returns(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = mlp(), kind

    def forward(self, x):
        y = self.net(x)
        return self.kind(y) if self.kind is Custom else self.kind(y, [y])


def outputs_and_gradients_of_gradients(rank, nproc):
    """However outputs are packed; and torch.autograd.grad() in the loss is no end of backward()."""
    expected = train(wrap(mlp()), rank)
    for kind in (Output, Custom):
        model = wrap(Returns(kind))
        assert torch.equal(train(model, rank, loss=lambda m, x: m(x).y.square().mean()), expected)

    def penalised(model, x):
        x = x.requires_grad_()
        y = model(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y.square().mean() + slope.square().sum()

    for algorithm in ALGORITHMS:
        model = wrap(mlp(), algorithm, bucket_cap_mb=1e-5)
        train(model, rank, loss=penalised)
        assert model.statistics().steps == 3
        assert 0 < model.consensus_distance() < 1


def half_precision(rank, nproc):
    """bfloat16 parameters and variables: one average over the complete graph makes all equal."""
    for algorithm in ("atc", "gradient_tracking"):
        model = bf.DecentralizedDataParallel(
            mlp(rank).bfloat16(), algorithm=algorithm, topology="fully_connected"
        )
        train(model, rank, loss=lambda m, x: m(x.bfloat16()).float().square().mean())
        assert model.consensus_distance() == 0


def scaled_float16(rank, nproc):
    """One rank's infinities, and one rank without any gradient: the scale stays common."""
    scaler = bf.GradScaler(init_scale=2.0**10, growth_interval=2)
    model = wrap(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scales = []
    for step in range(4):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).mean() * (torch.inf if step == 1 and rank == 0 else 1)
        scaler.scale(loss).backward()
        if step == 2 and rank == 1:
            optimizer.zero_grad()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [2.0**10, 2.0**9, 2.0**9, 2.0**10]
    assert bf.GradScaler(enabled=False).scale(torch.ones(1)) == 1


def statistics(rank, nproc):
    """On a ring of three: two neighbours; one block of 20 + 3 * 16 numbers and padding."""
    model = wrap(mlp(), "gradient_tracking")
    train(model, rank)
    seen = model.statistics()
    block = 4 * (32 + 16 + 16 + 16)  # bytes; parameters start at multiples of 64
    assert seen.steps == 3
    assert seen.exchanges == 3 + 2  # x each time, y but the first time
    assert seen.bytes_sent == 5 * 2 * block
    parts = ("x", "x arriving", "y", "y arriving", "g", "gradients")
    assert seen.memory == dict.fromkeys(parts, block)
    assert seen.wait_seconds > 0
    with pytest.raises(AttributeError):
        seen.steps = 0
    model = wrap(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)))
    assert model.statistics().memory["buffers"] == 2 * 2 * 64


def run_all(rank, nproc):
    dist.init_process_group("bluefog")
    sparse_gradients(rank, nproc)
    outputs_and_gradients_of_gradients(rank, nproc)
    half_precision(rank, nproc)
    scaled_float16(rank, nproc)
    statistics(rank, nproc)


def test_odd_models():
    run_ranks(run_all, 3, timeout=120)
