"""gradient_allreduce beside stock DistributedDataParallel on Gloo, in the same processes."""

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf


class Branches(nn.Module):
    """Three parts, of which a step may use some only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Linear(4, 4).double() for _ in range(3))

    def forward(self, x, parts):
        for part in parts:
            x = getattr(self, part)(x).tanh()
        return x


# Which parts a rank uses in each micro-batch of a step; all but the last are under no_sync().
STEPS = [
    lambda rank: ["abc"],
    lambda rank: ["abc" if rank == 0 else "a"],  # only rank 0 uses b and c
    lambda rank: ["ac"],  # nobody uses b: its momentum must not move it
    lambda rank: ["abc", "abc"],
    lambda rank: ["ab", "a", "ac" if rank else "ab"],
    lambda rank: ["a", "bc"],
    lambda rank: ["bc"],
]


def batch(rank, step, micro):
    generator = torch.Generator().manual_seed(100 * rank + 10 * step + micro)
    return torch.randn(5, 4, generator=generator, dtype=torch.float64) + rank


def train(rank, model, optimizer, set_to_none=True, clip=True):
    """Returns the parameters after each step, and the norm that clipping has seen."""
    path = []
    for step, parts_of in enumerate(STEPS):
        optimizer.zero_grad(set_to_none=set_to_none)
        *accumulated, last = enumerate(parts_of(rank))
        for micro, parts in accumulated:
            with model.no_sync():
                model(batch(rank, step, micro), parts).square().mean().backward()
        micro, parts = last
        model(batch(rank, step, micro), parts).square().mean().backward()
        norm = torch.zeros((), dtype=torch.float64)
        if clip:
            norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.1)
        optimizer.step()
        path.append(torch.cat([*(p.detach().flatten() for p in model.parameters()), norm[None]]))
    return torch.stack(path)


def both(gloo):
    """Returns stock DDP and ours, around equal models, and their optimizers."""
    ddp = nn.parallel.DistributedDataParallel(
        Branches(), process_group=gloo, find_unused_parameters=True
    )
    ours = bf.DecentralizedDataParallel(
        Branches(), algorithm="gradient_allreduce", bucket_cap_mb=2e-4
    )
    assert len(ours._cycle.blocks) == 3
    options = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}
    return [(model, torch.optim.SGD(model.parameters(), **options)) for model in (ddp, ours)]


def train_until_data_end(rank, model, optimizer):
    """Rank 0 has 4 batches, the others 2. Returns rank 0's parameters."""
    with model.join():
        for step in range(2 if rank else 4):
            optimizer.zero_grad()
            model(batch(rank, step, 0), "abc").square().mean().backward()
            optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]) * (rank == 0)


def beside_ddp(rank, nproc):
    dist.init_process_group("bluefog")
    gloo = dist.new_group(backend="gloo")
    results = {}
    for name, options in {
        "plain": {},
        "zeros": {"set_to_none": False},
        "in backward": {"clip": False},
    }.items():
        ddp, ours = both(gloo)
        if name == "in backward":
            ours[0].step_in_backward(ours[1])
        results[name] = [train(rank, *pair, **options) for pair in (ddp, ours)]
    results["join"] = [train_until_data_end(rank, *pair) for pair in both(gloo)]
    return results


@pytest.fixture(scope="module")
def results():
    return run_ranks(beside_ddp, 3, timeout=200)


@pytest.mark.parametrize("way", ["plain", "zeros", "in backward", "join"])
def test_equals_ddp(results, way):
    for result in results:
        ddp, ours = result[way]
        torch.testing.assert_close(ours, ddp, rtol=0, atol=1e-12)
        if way != "join":
            assert torch.equal(ours, results[0][way][1])  # ranks stay equal


def test_what_is_compared_differs(results):
    plain, zeros = results[0]["plain"][0], results[0]["zeros"][0]
    assert (plain[:, -1] > 0.1).sum() >= 3  # gradients that were clipped
    assert not torch.equal(plain, zeros)  # in steps without b
    assert not torch.equal(plain, results[0]["in backward"][0])


def sparse(rank, nproc):
    dist.init_process_group("bluefog")
    model = bf.DecentralizedDataParallel(
        nn.Embedding(4, 2, sparse=True), algorithm="gradient_allreduce"
    )
    try:
        model(torch.tensor([1])).sum().backward()
    except NotImplementedError as error:
        return str(error)


def test_sparse_gradients_are_refused():
    for message in run_ranks(sparse, 2):
        assert "shape (4, 2) has a sparse gradient" in message
