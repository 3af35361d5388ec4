"""Programs that go another way while exchanges overlap: what must raise, and what must go on."""

import warnings

import pytest
import torch
import torch.distributed as dist
from overlapped import LR, Way, batch, flat, loss_of, make, make_network, train_step
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf

TOPOLOGY = "fully_connected"


class Early(nn.Module):
    """Uses a layer's bias, on `early`, before it calls the layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.early = self.broken = False

    def forward(self, x):
        if self.early:
            x = x + self.second.bias
        x = self.first(x)
        if self.broken:
            raise KeyError("the model's own")
        assert self.second.bias.shape == (6,) and self.second.bias.dtype == x.dtype
        return self.second(x)


def early_use(rank, nproc):
    dist.init_process_group("bluefog")
    torch.manual_seed(0)
    model = bf.DecentralizedDataParallel(
        Early().double(),
        algorithm="atc",
        topology=TOPOLOGY,
        bucket_cap_mb=7e-5,
        lazy_combine=True,
    )
    net, optimizer = model.module, torch.optim.SGD(model.parameters(), lr=LR)

    def step(at):
        optimizer.zero_grad()
        model(batch(rank, at)).square().mean().backward()
        optimizer.step()

    step(0), step(1)
    net.early = True
    words = ("add uses a parameter before", "lazy_combine")
    raises(RuntimeError, *words, call=lambda: model(batch(rank, 2)))
    net.early, net.broken = False, True
    step_without = flat(model)  # everything is in place, and no parameter is hidden any more
    assert all(type(p) is nn.Parameter for p in net.parameters())
    assert model.consensus_distance() < 1e-15
    raises(KeyError, "own", call=lambda: model(batch(rank, 2)))
    assert torch.equal(flat(model), step_without)
    net.broken = False
    step(2)
    model.settle()
    assert model.consensus_distance() < 1e-15 and not torch.equal(flat(model), step_without)

    eager = bf.DecentralizedDataParallel(
        Early().double(),
        algorithm="atc",
        topology=TOPOLOGY,
        bucket_cap_mb=7e-5,
        lazy_combine=False,
    )
    net, model, optimizer = eager.module, eager, torch.optim.SGD(eager.parameters(), lr=LR)
    net.early = True
    step(0), step(1), step(2)


def test_a_parameter_that_is_used_too_early_raises():
    run_ranks(early_use, 2)


def late_failure(rank, nproc):
    """One exchange fails, in the midst of a forward pass, on rank 0 only."""
    dist.init_process_group("bluefog")
    model, optimizer = make(Way(), TOPOLOGY)
    for step in range(2):
        train_step(Way(), model, optimizer, rank, step)
    network, fails = model._cycle.network, []
    wait = network.wait

    def failing_wait(work):
        wait(work)
        if 0 in fails:
            fails.clear()
            raise RuntimeError("lost")

    network.wait = failing_wait
    hook = model.module.norm.register_forward_pre_hook(lambda *_: fails.append(rank))
    if rank == 0:
        raises(RuntimeError, "lost", call=lambda: loss_of(model, rank, 2))
        assert all(type(p) is nn.Parameter for p in model.parameters())
    hook.remove()
    fails.clear()
    for step in range(2, 5):  # rank 0 makes its step 2 now; exchanges still pair up
        train_step(Way(), model, optimizer, rank, step)
    assert model.consensus_distance() < 1e-15


def test_an_exchange_that_fails_during_the_forward_pass():
    run_ranks(late_failure, 2)


def steps_that_go_another_way(rank, nproc):
    dist.init_process_group("bluefog")
    way = Way(in_backward=True)
    model, optimizer = make(way, TOPOLOGY)
    train_step(way, model, optimizer, rank, 0)

    # A forward pass without backward(), on one rank: it sends its x as it is.
    other = make_network()
    other.load_state_dict(model.module.state_dict())
    loss = loss_of(model, rank, 1)
    model_before = flat(model)
    if rank == 1:
        loss.backward()
    model.settle()
    nn.utils.vector_to_parameters(model_before.clone(), other.parameters())
    if rank == 1:
        plain = way.make_optimizer(other)
        loss_of(other, rank, 1).backward()
        plain.step()
    mine = flat(other)
    dist.all_reduce(mine)
    torch.testing.assert_close(flat(model), mine / nproc, rtol=0, atol=1e-13)

    # backward() twice after one forward pass: the second would come after the step.
    loss = loss_of(model, rank, 2)
    kept = model.module.outward(torch.ones(8, dtype=torch.float64)).sum()
    loss.backward()
    raises(RuntimeError, "outward.", "no_sync", call=kept.backward)
    optimizer.step()
    assert all(p.grad is None for p in model.module.inward.parameters())
    raises(RuntimeError, "outward.", "no_sync", call=lambda: once_more(model))

    # Whoever looks at gradients after backward() is told that there are none.
    model.zero_grad()
    loss_of(model, rank, 3).backward()
    words = ("step_in_backward has taken",)
    clip = nn.utils.clip_grad_norm_
    raises(RuntimeError, *words, call=lambda: clip(model.parameters(), 1.0))
    raises(RuntimeError, *words, call=lambda: model.module.inward.weight.grad.norm())
    assert model.module.inward.weight.grad.shape == (8, 6)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, rank, 4)).backward()
    raises(RuntimeError, *words, call=lambda: scaler.step(optimizer))

    # Back to the ordinary step.
    model.step_in_backward()
    optimizer.zero_grad()
    loss_of(model, rank, 5).backward()
    assert float(clip(model.parameters(), 1e9)) > 0
    optimizer.step()
    assert model.consensus_distance() < 1e-13


def once_more(model):
    """A loss that the forward pass of the wrapper has no part in."""
    model.module.outward(torch.ones(8, dtype=torch.float64)).sum().backward()


def test_steps_that_go_another_way():
    run_ranks(steps_that_go_another_way, 2)


class Counting(torch.optim.SGD):
    """Keeps a count in its groups."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        return super().step(closure)


def optimizers(rank, nproc):
    dist.init_process_group("bluefog")
    model, _ = make(Way(), TOPOLOGY)
    parameters = list(model.parameters())
    names = [name for name, _ in model.module.named_parameters()]

    def refused(kind, *words, of):
        raises(kind, *words, call=lambda: model.step_in_backward(*of))

    refused(TypeError, "takes torch optimizers", of=[parameters])
    refused(ValueError, "LBFGS", "closure", of=[torch.optim.LBFGS(parameters)])
    refused(ValueError, f"holds {names[-1]}:", of=[torch.optim.SGD(parameters[:-1], lr=LR)])
    hooked = torch.optim.SGD(parameters, lr=LR)
    hooked.register_step_pre_hook(lambda *_: None)
    refused(ValueError, "register_step_pre_hook", of=[hooked])
    whole = torch.zeros(12)
    views = nn.ParameterList([nn.Parameter(part) for part in whole.split(6)])
    views.forward = lambda x: sum(p.sum() for p in views)
    of_views = bf.DecentralizedDataParallel(views, algorithm="atc", bucket_cap_mb=1e-6)
    with pytest.raises(ValueError, match="views of one tensor"):
        of_views.step_in_backward(torch.optim.SGD(of_views.parameters(), lr=LR))

    counting = Counting(parameters, lr=LR)
    model.step_in_backward(counting)
    raises(RuntimeError, "Counting.step() changes 'count'", call=loss_of(model, rank, 0).backward)

    # Two optimizers, one of them with a schedule and a hook after the step.
    model, _ = make(Way(), TOPOLOGY)
    parameters = list(model.parameters())
    first, second = torch.optim.SGD(parameters[:5], lr=LR), torch.optim.Adam(parameters[5:], lr=LR)
    calls = []
    first.register_step_post_hook(lambda *_: calls.append("after"))
    schedule = torch.optim.lr_scheduler.StepLR(first, step_size=1, gamma=0.0)
    model.step_in_backward(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            before = [p.detach().clone() for p in parameters]
            loss_of(model, 0, step).backward()  # the same on both ranks
            first.step(), second.step(), schedule.step()
            model.settle()
            moved = [not torch.equal(a, b) for a, b in zip(before, parameters, strict=True)]
            assert all(moved[6:8]) and all(moved[:2]) == (step == 0)
    assert calls == ["after"] * 3
    assert {s["step"].item() for s in second.state.values()} <= {1.0, 2.0, 3.0}


def test_optimizers():
    run_ranks(optimizers, 2)
