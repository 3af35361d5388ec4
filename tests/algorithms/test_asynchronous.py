"""Algorithms over windows: ranks that do not wait for each other, however slow or dead they are."""

import os
import random
import signal
import time
import warnings

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import start as start_group
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms
from bluefog_pg.algorithms.asynchronous.a2cid2 import constants

ALL = ("a2cid2", "ad_psgd", "async_push_sum", "pull_get", "win_put")
KEEP_THE_MEAN = ("a2cid2", "ad_psgd", "async_push_sum")
GRAPHS = {"async_push_sum": "exponential", "win_put": "exponential", "pull_get": "exponential"}
PAIRWISE = "symmetric_exponential"


def make(name, start, lr=0.0, graph=None):
    """A model whose parameters are `start`, and whose gradient is parameter - target."""
    module = nn.ParameterList([nn.Parameter(start.clone())])
    model = bf.DecentralizedDataParallel(
        Holder(module),
        init_sync=False,
        algorithm=name,
        topology=graph or GRAPHS.get(name, PAIRWISE),
    )
    return model, torch.optim.SGD(model.parameters(), lr=lr)


class Holder(nn.Module):
    def __init__(self, parameters):
        super().__init__()
        self.held = parameters

    def forward(self, target):
        return (self.held[0] - target).square().sum() / 2


def step(model, optimizer, target):
    optimizer.zero_grad()
    model(target).backward()
    optimizer.step()


def weighted(model):
    """Sum over ranks of w x, and of w, where w is 1 but in push-sum."""
    (block,) = model._cycle.blocks
    weight = block.scalars("w")[0] if "w" in block.variables() else 1.0
    total = torch.cat([weight * block["x"].double(), torch.tensor([weight], dtype=torch.float64)])
    dist.all_reduce(total)
    return total


def averages_without_gradients(rank, nproc, transport):
    start_group(transport)
    rng = random.Random(rank)
    for name in ALL:
        start = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
        model, optimizer = make(name, start)
        before = weighted(model)
        for _ in range(200 + 50 * rank):  # ranks make different numbers of steps
            step(model, optimizer, torch.zeros(50, dtype=torch.float64))
            if rng.random() < 0.1:
                time.sleep(rng.random() / 500)
        for _ in range(3):
            model.settle()  # also takes in what others sent after this rank's last step
        after = weighted(model)
        if name in KEEP_THE_MEAN:
            torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * nproc)
        distance = model.consensus_distance()
        assert distance < (1e-3 if name in KEEP_THE_MEAN else 1e-2) * start.norm(), (name, distance)


@pytest.mark.parametrize("transport", ["auto", "tcp", "mixed"])
def test_the_mean_is_kept(transport):
    run_ranks(averages_without_gradients, 4, transport, timeout=120)


def averages_once_with_a_stopped_rank(rank, nproc):
    """However many steps the other makes: else the two would change places."""
    dist.init_process_group("bluefog")
    for name in ("a2cid2", "ad_psgd"):
        model, optimizer = make(name, torch.full((4,), float(rank), dtype=torch.float64))
        x = model.module.held[0].detach()
        target = torch.zeros(4, dtype=torch.float64)
        if rank == 0:
            step(model, optimizer, target)
            assert torch.equal(x, torch.full_like(x, 0.5))
            for _ in range(10):
                step(model, optimizer, target)
        dist.barrier()
        if rank == 1:
            step(model, optimizer, target)
            assert x[0] == 0.5 or name == "a2cid2"  # which moves on by its momentum
        dist.barrier()
        model.settle()
        torch.testing.assert_close(weighted(model)[0].item(), 1.0, rtol=0, atol=1e-12)


def test_a_stopped_rank_is_averaged_with_once():
    run_ranks(averages_once_with_a_stopped_rank, 2, env=None)


def trains(rank, nproc):
    """Least squares whose optimum is the mean of the ranks' targets, if no rank is slower."""
    dist.init_process_group("bluefog")
    for name in ALL:
        start = torch.zeros(20, dtype=torch.float64)
        model, optimizer = make(name, start, lr=0.02)
        target = torch.full((20,), float(rank), dtype=torch.float64)
        for at in range(400):
            if at % 10 == 0:
                dist.barrier()  # cores may be few: else a rank may be done before another begins
            step(model, optimizer, target)
        model.finalize()
        found = model.module.held[0].detach().mean().item()
        optimum = (nproc - 1) / 2
        assert abs(found - optimum) < 0.25, (name, found)


def test_training_finds_the_optimum():
    run_ranks(trains, 4, timeout=120)


def counts_all_alike(rank, nproc):
    """Push-sum where ranks take turns, and rank 0 comes a tenth as often as each other one."""
    dist.init_process_group("bluefog")
    for graph in (bf.topology.get("exponential")(4), nx.DiGraph(UNEQUAL_DEGREES)):
        model, optimizer = make("async_push_sum", torch.zeros(4), lr=0.02, graph=graph)
        target = torch.full((4,), float(rank == 0))  # the optimum is 1 / 4, by steps 1 / 31
        for whose in random.Random(0).choices(range(4), weights=[1, 10, 10, 10], k=3000):
            if rank == whose:
                step(model, optimizer, target)
            dist.barrier()
        model.finalize()
        found = model.module.held[0].detach()
        torch.testing.assert_close(found, torch.full((4,), 1 / 4), rtol=0, atol=0.03)


UNEQUAL_DEGREES = [(0, 1), (0, 2), (1, 2), (2, 3), (2, 0), (3, 0)]


def test_slow_ranks_count_as_much_in_push_sum():
    run_ranks(counts_all_alike, 4, timeout=120)


def goes_on_alone(rank, nproc):
    """Of push-sum, where nothing comes for so long that a share of a share would be zero."""
    dist.init_process_group("bluefog")
    model, optimizer = make("async_push_sum", torch.full((8,), 1.0 + rank), lr=0.1)
    before = weighted(model)
    if rank == 0:
        for _ in range(500):
            step(model, optimizer, torch.full((8,), 5.0))
        torch.testing.assert_close(model.module.held[0].detach(), torch.full((8,), 5.0))
    model.settle()
    value = model.module.held[0].detach()
    assert value.min() > 1 - 1e-5 and value.max() < 5 + 1e-5  # averages of what there was
    assert abs(weighted(model)[-1] - before[-1]) < 1e-12


def test_a_rank_may_be_alone_for_long_in_push_sum():
    run_ranks(goes_on_alone, 4)


def pace(rank, nproc, name, slow):
    """Steps per second of this rank while rank 0 makes `steps`, slowed tenfold if `slow`."""
    model, optimizer = make(name, torch.zeros(1000))
    store = dist.distributed_c10d._get_default_store()
    target, key = torch.ones(1000), f"{name} {slow} is over"
    dist.barrier()
    began, steps = time.perf_counter(), 0
    while not store.check([key]):
        time.sleep(0.1 if slow and rank == 0 else 0.01)  # the time of a forward pass elsewhere
        step(model, optimizer, target)
        steps += 1
        if rank == 0 and steps == (15 if slow else 150):
            store.set(key, "")
            break
        if name == "awc" and steps == (15 if slow else 150):
            break
    rate = steps / (time.perf_counter() - began)
    if name != "awc":
        model.settle()
    return rate


def with_a_straggler(rank, nproc):
    dist.init_process_group("bluefog")
    return {
        name: (pace(rank, nproc, name, False), pace(rank, nproc, name, True))
        for name in (*ALL, "awc")
    }


def test_a_slow_rank_slows_nobody():
    paces = run_ranks(with_a_straggler, 4, timeout=180)
    for name in ALL:
        alone, beside_it = zip(*(found[name] for found in paces[1:]), strict=True)
        assert sum(beside_it) >= 0.9 * sum(alone), (name, alone, beside_it)
    alone, beside_it = zip(*(found["awc"] for found in paces[1:]), strict=True)
    assert sum(beside_it) < 0.3 * sum(alone)  # the contrast: everybody waits for everybody


def goes_on_without_the_dead(rank, nproc, transport, name):
    start_group(transport)
    start = torch.full((30,), float(rank), dtype=torch.float64)
    model, optimizer = make(name, start, graph=PAIRWISE)  # all are neighbours of all
    dist.barrier()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for at in range(300):
            if rank == 3 and at == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            step(model, optimizer, torch.zeros(30, dtype=torch.float64))
            time.sleep(0.002)
    texts = [str(w.message) for w in caught]
    assert sum("training goes on without rank 3" in text for text in texts) == 1, texts
    value = model.module.held[0].detach()
    assert value.isfinite().all()
    return value[0].item()


@pytest.mark.parametrize(
    ("transport", "name"), [*(("auto", name) for name in ALL), ("tcp", "ad_psgd")]
)
def test_a_dead_rank_is_left_out(transport, name):
    values = run_ranks(goes_on_without_the_dead, 4, transport, name, timeout=60, dies=[3])[:3]
    assert max(values) - min(values) < 0.2, values


def saves(rank, nproc):
    dist.init_process_group("bluefog")
    for name in ALL:
        start = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
        model, optimizer = make(name, start)
        for _ in range(5 + rank):
            step(model, optimizer, torch.zeros(10, dtype=torch.float64))
        state = {
            key: value.clone() if isinstance(value, torch.Tensor) else value
            for key, value in model.state_dict().items()
        }
        before = weighted(model)
        other, optimizer = make(name, torch.zeros(10, dtype=torch.float64))
        other.load_state_dict(state)
        torch.testing.assert_close(weighted(other), before, rtol=0, atol=1e-13)
        assert other.statistics().steps == 5 + rank
        for _ in range(3):
            step(other, optimizer, torch.zeros(10, dtype=torch.float64))
        other.settle()
        if name in KEEP_THE_MEAN:
            torch.testing.assert_close(weighted(other), before, rtol=0, atol=1e-12)


def test_mass_survives_saving():
    run_ranks(saves, 4, timeout=60)


def test_constants_of_a2cid2():
    """Two ranks that choose each other once a step have the Laplacian 2 [[1, -1], [-1, 1]]."""
    h, a = constants(bf.topology.get("fully_connected")(2))
    r, s = 1 / 4, 1 / 2 * 1 / 2  # eigenvalue 4; resistance 1 / 2
    assert h == pytest.approx(1 / (2 * (r * s) ** 0.5)) and a == pytest.approx((r / s) ** 0.5 / 2)
    poor = constants(bf.topology.get("ring")(16))
    assert poor[0] < h and poor[1] > 1  # slower mixing, larger steps of the momentum


def refusals(rank, nproc):
    dist.init_process_group("bluefog")
    with pytest.raises(ValueError, match=r"ad_psgd needs .* go both ways: rank 0 sends to"):
        make("ad_psgd", torch.zeros(3), graph="exponential")
    with pytest.raises(ValueError, match="never repeats itself"):
        make("win_put", torch.zeros(3), graph="random_matching")


def test_graphs_that_do_not_fit():
    run_ranks(refusals, 4)
    assert set(ALL) <= set(algorithms.names())
