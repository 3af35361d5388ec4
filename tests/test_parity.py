"""Stock DDP and FSDP2 train on "bluefog" exactly as on "gloo"."""

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

RANKS = 2
STEPS = 10


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def with_ddp(model):
    return DistributedDataParallel(model)


def with_fsdp2(model):
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def losses(rank, nproc, backend, wrap):
    """The loss of each step, on data that differs between ranks."""
    dist.init_process_group(backend)
    assert dist.get_backend() == backend
    model = wrap(make_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = torch.Generator().manual_seed(100 + rank)
    result = []
    for _ in range(STEPS):
        x = torch.randn(8, 6, generator=data)
        loss = (model(x) - x[:, :3]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    return result


@pytest.fixture(scope="module", params=[with_ddp, with_fsdp2])
def on_gloo(request):
    """A way to train, and its losses on gloo. Without DETAIL, which crashes DDP on gloo itself:
    torch's DDP logger takes the wrapper that DETAIL makes for a ProcessGroupGloo."""
    return request.param, run_ranks(losses, RANKS, "gloo", request.param)


def test_gloo_trains(on_gloo):
    _, (first, second) = on_gloo
    assert first[-1] < first[0] / 2
    assert len(set(first)) == STEPS
    assert first != second  # each rank has data of its own


@pytest.mark.parametrize("debug", ["OFF", "DETAIL"])  # DETAIL wraps each backend in another one
def test_same_losses_as_on_gloo(on_gloo, debug):
    wrap, expected = on_gloo
    env = {"TORCH_DISTRIBUTED_DEBUG": debug}
    assert run_ranks(losses, RANKS, "bluefog", wrap, env=env) == expected
