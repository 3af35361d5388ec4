"""torch.compile, of the module inside and of the wrapper."""

import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import bluefog_pg as bf


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 2))


def wrap(module, algorithm):
    return bf.DecentralizedDataParallel(
        module,
        algorithm=algorithm,
        topology="ring",
        bucket_cap_mb=1e-4,
        lazy_combine=algorithm == "atc",
    )


def train(model, wrapped, rank):
    """Returns the parameters after some steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(4):
        generator = torch.Generator().manual_seed(10 * step + rank)
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    wrapped.settle()
    return torch.cat([p.detach().reshape(-1) for p in wrapped.parameters()])


def compile_inside(algorithm, backend):
    model = wrap(torch.compile(net(), backend=backend, fullgraph=True), algorithm)
    return model, model


def compile_all(algorithm, backend):
    model = wrap(net(), algorithm)
    return torch.compile(model, backend=backend), model


def compiled(rank, nproc):
    """One graph of all five layers, which no step compiles again, and the same results."""
    dist.init_process_group("bluefog")
    for algorithm, compile in (
        ("awc", compile_inside),
        ("atc", compile_all),
        ("gradient_tracking", compile_all),
    ):
        plain = wrap(net(), algorithm)
        expected = train(plain, plain, rank)
        torch._dynamo.reset()
        graphs = CompileCounterWithBackend("aot_eager")
        torch.testing.assert_close(train(*compile(algorithm, graphs), rank), expected)
        assert (graphs.frame_count, graphs.op_count) == (1, 5)


def test_compiles_without_breaks():
    run_ranks(compiled, 2, timeout=120)
