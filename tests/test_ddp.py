"""DecentralizedDataParallel against a serial model of its equation, and as DDP's replacement."""

import inspect
import warnings

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf
from bluefog_pg.topology import mixing_matrix

LR = 0.125


def make_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch(rank, step):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(6, 5, generator=generator, dtype=torch.float64)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def gradient(model, x):
    model.zero_grad()
    model(x).square().mean().backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def serial_run(topology, nproc, steps):
    """All ranks in one process: X <- W X - lr G(X), in float64."""
    models = [make_model() for _ in range(nproc)]
    for step in range(steps):
        graph = topology(step) if isinstance(topology, bf.Schedule) else topology
        w = torch.from_numpy(mixing_matrix(graph))
        grads = torch.stack([gradient(m, batch(r, step)) for r, m in enumerate(models)])
        x = w @ torch.stack([flat(m) for m in models]) - LR * grads
        for model, values in zip(models, x, strict=True):
            nn.utils.vector_to_parameters(values, model.parameters())
    return torch.stack([flat(m) for m in models])


def train(rank, nproc, topology_name, steps, cap_mb):
    dist.init_process_group("bluefog")
    model = bf.DecentralizedDataParallel(
        make_model(seed=rank), topology=topology_name, bucket_cap_mb=cap_mb
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for step in range(steps):
        optimizer.zero_grad()
        model(batch(rank, step)).square().mean().backward()
        optimizer.step()
    distance = model.consensus_distance()
    with model.averaged():
        average = flat(model)
    return flat(model), average, distance


@pytest.mark.parametrize(
    ("name", "nproc", "cap_mb"),
    [("one_peer_exponential", 4, 25), ("exponential", 3, 1e-5), ("fully_connected", 2, 25)],
)
def test_follows_its_equation(name, nproc, cap_mb):
    steps = 7
    expected = serial_run(bf.topology.get(name)(nproc), nproc, steps)
    mean = expected.mean(0)
    distance = (expected - mean).square().sum().div(nproc).sqrt().item()
    for rank, (x, average, seen) in enumerate(run_ranks(train, nproc, name, steps, cap_mb)):
        torch.testing.assert_close(x, expected[rank], rtol=0, atol=1e-12)
        torch.testing.assert_close(average, mean, rtol=0, atol=1e-12)
        assert seen == pytest.approx(distance, rel=1e-9)
    assert distance > 1e-3


class Branches(nn.Module):
    """Uses one of two layers, one shared parameter, one frozen, and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.again = self.a
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x, use_b):
        x = self.norm(self.again(self.frozen(x)))
        return self.b(x) if use_b else x


def train_branches(rank, nproc):
    dist.init_process_group("bluefog")
    torch.manual_seed(rank)
    model = bf.DecentralizedDataParallel(Branches(), topology="fully_connected")
    start = flat(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        use_b = step == 0 or rank == 0  # later only rank 0 uses the branch
        x = torch.randn(8, 4) + rank
        model(x, use_b).square().mean().backward()
        optimizer.step()
    before = [model.module.b.weight.detach().clone(), model.module.norm.running_mean.clone()]
    with model.no_sync():  # a purely local step, and then one exchange without any gradient step
        model(x, False).sum().backward()
    local = model.module.b.weight.detach().clone()
    model.module.a.weight.grad = None
    model(x, False).sum().backward()
    with model.averaged():
        inside = model.module.norm.running_mean.clone()
    return {
        "start": start,
        "before": before,
        "local": local,
        "after": model.module.b.weight.detach().clone(),
        "frozen": model.module.frozen.weight.clone(),
        "averaged_mean": inside,
        "counter": model.module.norm.num_batches_tracked.item(),
    }


def test_unused_shared_and_frozen_parameters_and_buffers():
    results = run_ranks(train_branches, 3)
    first = results[0]
    weights = torch.stack([r["before"][0] for r in results])
    assert not torch.equal(weights[0], weights[1])
    for result in results:
        assert torch.equal(result["start"], first["start"])  # broadcast from rank 0
        assert torch.equal(result["frozen"], first["frozen"])
        assert torch.equal(result["local"], result["before"][0])  # no_sync: untouched
        # Unused on ranks 1 and 2, and averaged all the same: one exchange on a complete graph.
        torch.testing.assert_close(result["after"], weights.mean(0), rtol=1e-6, atol=1e-7)
        assert torch.equal(result["averaged_mean"], first["averaged_mean"])
        assert result["counter"] == 6


def use_like_ddp(rank, nproc):
    dist.init_process_group("bluefog")
    model = bf.DecentralizedDataParallel(
        make_model(rank), device_ids=None, find_unused_parameters=True
    )
    assert model.topology.period == 1 and isinstance(model.module, nn.Sequential)
    ddp = nn.parallel.DistributedDataParallel(make_model(7))
    assert list(model.state_dict()) == ["_extra_state", *ddp.state_dict()]
    model.load_state_dict(ddp.state_dict())
    assert torch.equal(flat(model), flat(ddp))
    model.load_state_dict(make_model(8).state_dict())  # a plain module's names work too
    assert torch.equal(flat(model), flat(make_model(8)))
    ddp.module.load_state_dict(model.module.state_dict())
    assert torch.equal(flat(model), flat(ddp))
    model.load_state_dict(model.module.state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"module.nothing": torch.zeros(1)})

    # Two forward passes share one exchange; evaluation takes part in none.
    x = batch(rank, 0)
    sent = bf.ops.bytes_sent()
    model.eval()(x).sum()
    with torch.no_grad():
        model.train()(x)
    assert bf.ops.bytes_sent() == sent
    (model(x).sum() + model(x).sum()).backward()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size <= bf.ops.bytes_sent() - sent < size + 64 * 4

    # Unfreezing and freezing are followed.
    model.module[0].requires_grad_(False)
    sent = bf.ops.bytes_sent()
    model(x).sum().backward()
    assert bf.ops.bytes_sent() - sent < size
    model.module[0].requires_grad_(True)
    sent = bf.ops.bytes_sent()
    model(x).sum().backward()
    assert bf.ops.bytes_sent() - sent >= size

    # A forward pass whose gradients never come through backward() is not swallowed.
    torch.autograd.grad(model(x).sum(), list(model.parameters()))
    with torch.no_grad():
        model.module[0].weight.add_(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(x).sum().backward()
    assert any("averages were under way, which are dropped" in str(w.message) for w in caught)


def test_takes_the_place_of_ddp():
    run_ranks(use_like_ddp, 2)


def refused_keywords(rank, nproc):
    dist.init_process_group("bluefog")
    for name, value in {
        "bucket_cap_mb_list": [1],
        "check_reduction": True,
        "delay_all_reduce_named_params": [],
        "param_to_hook_all_reduce": nn.Parameter(torch.ones(1)),
        "mixed_precision": object(),
        "device_mesh": object(),
        "skip_all_reduce_unused_params": True,
    }.items():
        with pytest.raises(ValueError, match=name):
            bf.DecentralizedDataParallel(make_model(), **{name: value})
        default = False if name in ("check_reduction", "skip_all_reduce_unused_params") else None
        bf.DecentralizedDataParallel(make_model(), **{name: default})
    with pytest.raises(TypeError, match="no keyword 'bukket_cap_mb'"):
        bf.DecentralizedDataParallel(make_model(), bukket_cap_mb=1)
    with pytest.raises(ValueError, match="device_ids"):
        bf.DecentralizedDataParallel(make_model(), device_ids=[0])
    with pytest.raises(ValueError, match="without trainable parameters"):
        bf.DecentralizedDataParallel(make_model().requires_grad_(False))
    with pytest.raises(TypeError, match=r"parameter weight has dtype torch\.complex64"):
        bf.DecentralizedDataParallel(nn.Linear(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="rign"):
        bf.DecentralizedDataParallel(make_model(), topology="rign")
    model = nn.Linear(3, 3 + rank)
    with pytest.raises(bf.MismatchError, match=r"rank 0 has weight float32\[3, 3\], rank 1"):
        bf.DecentralizedDataParallel(model)
    one_way = nx.DiGraph([(0, 1)])  # at two ranks, ring, star and the rest are one graph
    with pytest.raises(bf.MismatchError, match=r"edge 1 -> 0: weight 0\.5 on rank 0, absent"):
        bf.DecentralizedDataParallel(make_model(), topology=one_way if rank else "ring")


def test_refuses_by_name():
    run_ranks(refused_keywords, 2)


def keywords_of_ddp(rank, nproc):
    """Each, with DDP's default given in so many words, is as good as none; see what 2.15 added."""
    dist.init_process_group("bluefog")
    of_ddp = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    defaults = {name: p.default for name, p in of_ddp.items() if name != "module"}
    assert bf.DecentralizedDataParallel(make_model(), **defaults).broadcast_buffers
    for old, new, wanted in ((None, None, True), (False, None, False), (False, True, True)):
        buffers = {"broadcast_buffers": old, "forward_sync_buffers": new}
        assert bf.DecentralizedDataParallel(make_model(), **buffers).broadcast_buffers is wanted
    bf.DecentralizedDataParallel(make_model(), batched_grad_copy=True, lazy_bucket_allocation=True)


def test_knows_every_keyword_of_the_installed_ddp():
    run_ranks(keywords_of_ddp, 1)


def half_precision(rank, nproc):
    dist.init_process_group("bluefog")
    bf.set_topology("ring")
    model = bf.DecentralizedDataParallel(nn.Linear(8, 8).bfloat16())
    with torch.no_grad():
        model.module.weight.fill_(rank)
    model(torch.ones(1, 8).bfloat16()).sum().backward()
    return model.module.weight.detach()


def test_bfloat16_and_the_groups_own_topology():
    # ring(4): (rank - 1 + rank + rank + 1) / 3 around the circle
    expected = [(0 + 1 + 3) / 3, 1, 2, (3 + 2 + 0) / 3]
    for rank, weight in enumerate(run_ranks(half_precision, 4)):
        assert torch.equal(weight, torch.full((8, 8), expected[rank]).bfloat16())


def memory_of_parameters(rank, nproc):
    """Two pieces of memory in turn, read by neighbours in place; the layout of a tensor is kept."""
    dist.init_process_group("bluefog")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5, 2))
    module = module.to(memory_format=torch.channels_last)
    model = bf.DecentralizedDataParallel(module, topology="fully_connected")
    weight, x = module[0].weight, torch.ones(2, 3, 3, 3)
    places = []
    for step in range(4):
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(rank + step)
        version = weight._version
        model(x).sum().backward()
        assert weight._version > version  # autograd notices, as after an in-place change
        assert weight.is_contiguous(memory_format=torch.channels_last)
        mean = (nproc - 1) / 2 + step
        assert all(torch.equal(p, torch.full_like(p, mean)) for p in module.parameters())
        places.append(weight.data_ptr())
    assert places[0] == places[2] != places[1] == places[3]

    # Parameters that somebody gave other memory, or another dtype, are found and taken in again.
    weight.data = weight.data.clone()
    module.double()
    outside = weight.data_ptr()
    with torch.no_grad():
        weight.fill_(rank)
    model(x.double()).sum().backward()
    assert torch.equal(weight, torch.full_like(weight, (nproc - 1) / 2))
    assert weight.dtype == torch.float64 and weight.data_ptr() != outside

    odd = nn.Linear(4, 4)
    if rank == 1:
        odd.weight.data = odd.weight.data.t()
    words = r"rank 0 has weight float32\[4, 4\], rank 1 has weight .* with strides \[1, 4\]"
    with pytest.raises(bf.MismatchError, match=words):
        bf.DecentralizedDataParallel(odd)


def test_memory_of_parameters():
    run_ranks(memory_of_parameters, 3)
