"""Windows as BlueFog's programs use them, and the optimizers on them."""

import logging

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg
import bluefog_pg.torch as bf
from bluefog_pg.torch import topology_util


def conventions(rank, nproc):
    """What functions return, and what they say of mistakes."""
    dist.init_process_group("bluefog")
    bf.init()
    bf.set_topology(topology_util.RingGraph(nproc))
    x = torch.full((2, 3), float(rank))
    assert bf.win_create(x, "x") is True
    assert bf.win_create(torch.zeros(2, 3), "x") is False  # there is one already
    assert bf.win_create(torch.zeros(4), "y", zero_init=True) is True
    assert bf.get_current_created_window_names() == ["x", "y"]
    assert bf.set_topology(topology_util.FullyConnectedGraph(nproc)) is False
    assert bf.get_win_version("x") == dict.fromkeys(bf.in_neighbor_ranks(), 0)

    bf.barrier()
    assert bf.win_put(x, "x") is True
    handle = bf.win_put_nonblocking(x, "x")
    assert bf.win_wait(handle) is True and bf.win_poll(handle) is True
    assert bf.win_wait(handle) is False  # it has been waited for
    bf.barrier()
    assert bf.get_win_version("x") == dict.fromkeys(bf.in_neighbor_ranks(), 2)
    left, right = bf.in_neighbor_ranks()
    y = bf.win_update("x")
    assert y is x  # the very tensor
    torch.testing.assert_close(x, torch.full((2, 3), (rank + left + right) / 3))
    z = bf.win_update("x", self_weight=1.0, neighbor_weights={left: 0.0}, clone=True)
    assert z is not x and torch.equal(z, x)
    with pytest.raises(ValueError, match="none of its out-neighbours"):
        bf.win_put(x, "x", dst_weights={rank: 1.0})
    with pytest.raises(ValueError, match="there is no window 'q'; open are"):
        bf.win_update("q")
    with bf.win_mutex("x"), bf.win_lock("y"):
        pass
    assert bf.win_free("q") is False
    assert bf.win_free("y") is True and bf.win_free() is True
    assert bf.get_current_created_window_names() == []
    assert bf.set_topology(topology_util.FullyConnectedGraph(nproc)) is True
    bf.win_create(x, "left open")
    bf.shutdown()  # leaves the group, which the program has made
    assert bluefog_pg.get_current_created_window_names() == []


def test_conventions(caplog):
    caplog.set_level(logging.CRITICAL)
    run_ranks(conventions, 4)


def tutorial(rank, nproc):
    """The values of BlueFog's sixth tutorial."""
    bf.init()
    bf.set_topology(topology_util.RingGraph(nproc))
    x = torch.tensor([float(rank)])
    bf.win_create(x, "get")
    bf.barrier()
    if rank == 0:
        bf.win_get("get", src_weights={nproc - 1: 0.5})
        bf.win_update("get", self_weight=1.0, neighbor_weights={nproc - 1: 0.4})
        assert x.item() == pytest.approx(0.5 * 0.4 * (nproc - 1))
    bf.barrier()
    bf.win_free("get")

    x = torch.ones(1)
    bf.win_create(x, "sum", zero_init=True)
    bf.barrier()
    bf.win_accumulate(x, "sum")
    bf.barrier()
    assert bf.win_update_then_collect("sum").item() == 3
    assert bf.win_update_then_collect("sum").item() == 3  # mailboxes are empty
    bf.win_free()


def test_tutorial():
    run_ranks(tutorial, 4)


def push_sum(rank, nproc):
    """Asynchronous push-sum, line by line as in BlueFog's documentation."""
    bf.init()
    bf.set_topology(topology_util.ExponentialTwoGraph(nproc))
    x = torch.tensor([float(rank)], dtype=torch.float64)
    degree = len(bf.out_neighbor_ranks())
    bf.turn_on_win_ops_with_associated_p()
    bf.win_create(x, name="x", zero_init=True)
    assert bf.win_associated_p("x") == 1
    weights = {r: 1 / (degree + 1) for r in bf.out_neighbor_ranks()}
    for _ in range(200 + 20 * rank):
        bf.win_accumulate(
            x, name="x", self_weight=1 / (1 + degree), dst_weights=weights, require_mutex=True
        )
        bf.win_update_then_collect(name="x")
    for _ in range(40):  # in step: the last to come reach all others too
        bf.barrier()
        bf.win_accumulate(x, name="x", self_weight=1 / (1 + degree), dst_weights=weights)
        bf.barrier()
        bf.win_update_then_collect(name="x")
    result = x.item() / bf.win_associated_p("x")
    bf.turn_off_win_ops_with_associated_p()
    bf.win_free(name="x")
    assert result == pytest.approx((nproc - 1) / 2, abs=1e-10)


@pytest.mark.parametrize("nproc", [4, 8])
def test_push_sum_reaches_the_mean(nproc):
    run_ranks(push_sum, nproc, timeout=90)


def make(rank, lr):
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(float(rank))
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def optimizers(rank, nproc):
    bf.init()
    bf.set_topology(topology_util.ExponentialTwoGraph(nproc))
    makers = (
        bf.DistributedWinPutOptimizer,
        bf.DistributedPullGetOptimizer,
        bf.DistributedPushSumOptimizer,
    )
    for make_optimizer in makers:
        model, sgd = make(rank, lr=0.0)
        optimizer = make_optimizer(sgd, model=model)
        optimizer.force_barrier = True
        for _ in range(60):  # without gradients they agree, on the mean of what they began with
            optimizer.zero_grad()
            model(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
            optimizer.step()
        found = bf.allgather(model.weight.detach())
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=1e-6)
        if make_optimizer is bf.DistributedPushSumOptimizer:
            mean = torch.full_like(found, (nproc - 1) / 2)
            torch.testing.assert_close(found, mean, rtol=0, atol=1e-6)
        if make_optimizer is not bf.DistributedWinPutOptimizer:
            optimizer.dst_weights = {bf.out_neighbor_ranks()[0]: 1.0}
            with pytest.raises(ValueError, match="dst_weights has no effect on"):
                model(torch.ones(2, 3, dtype=torch.float64))
        optimizer.unregister_window()
        assert bf.get_current_created_window_names() == []


def test_optimizers_agree():
    run_ranks(optimizers, 4, timeout=90)


def knobs(rank, nproc):
    """One neighbour per batch, and accumulated gradients, as in BlueFog's examples."""
    bf.init()
    bf.set_topology(topology_util.ExponentialTwoGraph(nproc))
    model, sgd = make(rank, lr=0.05)
    optimizer = bf.DistributedWinPutOptimizer(
        sgd, model=model, num_steps_per_communication=2, window_prefix="mine"
    )
    assert bf.get_current_created_window_names() == ["mine.0"]
    optimizer.force_barrier = True
    target = torch.full((4, 1), 6.0, dtype=torch.float64)
    losses = []
    for batch in range(200):
        neighbors = bf.out_neighbor_ranks()
        optimizer.dst_weights = {neighbors[batch % len(neighbors)]: 1.0}
        optimizer.zero_grad()
        for _ in range(2):
            loss = (model(torch.ones(4, 3, dtype=torch.float64)) - target).square().mean() / 2
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-6
    model.weight.data = model.weight.data.clone()
    with pytest.raises(RuntimeError, match="parameters have other memory"):
        for _ in range(2):
            model(torch.ones(4, 3, dtype=torch.float64))
    optimizer.unregister_window()


def test_knobs():
    run_ranks(knobs, 4, timeout=60)
