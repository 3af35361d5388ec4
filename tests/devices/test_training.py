"""DecentralizedDataParallel on GPUs: with every algorithm, what it does on the CPU."""

import pytest
import torch
import torch.distributed as dist
from emulated import needs_cuda_module
from emulated_ranks import run_ranks
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms

pytestmark = needs_cuda_module
RANKS, STEPS = 4, 6
ASYNCHRONOUS = [name for name in algorithms.names() if algorithms.get(name).asynchronous]
IN_STEP = [name for name in algorithms.names() if name not in ASYNCHRONOUS]


def make(rank, device, algorithm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).to(device)
    for topology in (None, "ring", "directed_ring", "ceca"):
        try:
            model = bf.DecentralizedDataParallel(
                net,
                device_ids=[rank] if device.type == "cuda" else None,
                algorithm=algorithm,
                topology=topology,
                bucket_cap_mb=3e-4,  # several
            )
        except ValueError as error:  # all ranks find what it needs of a topology
            unfit = error
            continue
        return model, torch.optim.SGD(model.parameters(), lr=0.05)
    raise unfit


def train(rank, device, algorithm):
    model, optimizer = make(rank, device, algorithm)
    for step in range(STEPS):
        data = torch.Generator().manual_seed(100 * step + rank)
        x, y = torch.randn(16, 8, generator=data), torch.randn(16, 4, generator=data)
        optimizer.zero_grad()
        output = model(x)  # which device_ids moves
        assert output.device == device
        nn.functional.mse_loss(output, y.to(device)).backward()
        optimizer.step()
    model.settle()
    return model, [p.detach().cpu().clone() for p in model.parameters()]


def as_on_the_cpu(rank, nproc, names):
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("bluefog")
    for name in names:
        on_gpu, on_cpu = (train(rank, d, name)[1] for d in (device, torch.device("cpu")))
        message = f"{name}, rank {rank}"
        torch.testing.assert_close(
            on_gpu, on_cpu, rtol=1e-4, atol=1e-5, msg=lambda text, m=message: f"{m}: {text}"
        )


@pytest.mark.parametrize("part", range(4))
def test_training_is_the_cpus(part):
    run_ranks(as_on_the_cpu, RANKS, IN_STEP[part::4], timeout=200)


def without_waiting(rank, nproc):
    """Whatever comes in when, in the end all have the same mean, of finite values."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("bluefog")
    for name in ASYNCHRONOUS:
        model, own = train(rank, device, name)
        model.finalize()
        mean = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        everybodys = [torch.empty_like(mean) for _ in range(nproc)]
        dist.all_gather(everybodys, mean)
        for other in everybodys:
            torch.testing.assert_close(other, mean, msg=lambda text, n=name: f"{n}: {text}")
        assert mean.isfinite().all() and all(p.isfinite().all() for p in own), name


def test_training_without_waiting():
    run_ranks(without_waiting, RANKS, timeout=200)
