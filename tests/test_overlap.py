"""When exchanges start and arrive in a training step, and that none is waited for too early."""

import torch
import torch.distributed as dist
from overlapped import CAP_MB, EACH_MB, Log, Way, batch, blocks_of, flat, loss_of, make, train_step
from ranks import run_ranks
from support import store
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.checkpoint import checkpoint

import bluefog_pg as bf

TOPOLOGY = "ring"


def trained(way, rank, steps=4, cap_mb=EACH_MB):
    model, optimizer = make(way, TOPOLOGY, cap_mb=cap_mb)
    for step in range(steps):
        train_step(way, model, optimizer, rank, step)
    return model, optimizer


def lazy_order(rank, nproc):
    dist.init_process_group("bluefog")
    model, optimizer = trained(Way(), rank)
    log, net = Log(model), model.module
    train_step(Way(), model, optimizer, rank, 4)
    log.events.clear()
    train_step(Way(), model, optimizer, rank, 5)

    # Each block arrives before the first module that uses it, after the one before that has begun.
    in_order = [net.inward, net.attention, net.norm, net.twice]
    names = ["inward", "attention", "norm", "twice"]
    for module, name, before in zip(in_order, names, ["", *names], strict=False):
        waits = [log.at(("wait", block)) for block in blocks_of(model, module)]
        assert log.at(before) < min(waits) and max(waits) < log.at(name), name
    assert log.at(("wait", blocks_of(model, net.attention.out_proj)[0])) < log.at("attention")
    # Of the root itself, and of a branch that the forward pass knew nothing of when it learned.
    root = {b.index for b in model._cycle.blocks if any(t is net.scale for t in b.tensors)}
    for block in [*root, *blocks_of(model, net.branch)]:
        assert log.at(("wait", block)) < log.at("")
    # The step has sent everything, the first layers first.
    everything = list(range(len(model._cycle.blocks)))
    assert log.blocks("start") == everything and sorted(log.blocks("wait")) == everything

    # Evaluation, and modules that have changed, have everything in place before they begin.
    def waits_first(call):
        log.events.clear()
        call()
        return log.blocks("wait") == everything and log.at("") == len(everything)

    model.eval()
    assert waits_first(lambda: model(batch(rank, 5)))
    model.train()
    for change in (net.norm.eval, net.norm.train, lambda: setattr(net, "twice", Around(net.twice))):
        train_step(Way(), model, optimizer, rank, 5)
        change()
        assert waits_first(lambda: train_step(Way(), model, optimizer, rank, 6))
    assert not waits_first(lambda: train_step(Way(), model, optimizer, rank, 7))
    assert model.consensus_distance() < 10


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return nn.functional.linear(x, self.inner.weight, self.inner.bias)  # without a call


def test_averages_arrive_right_before_their_first_use():
    run_ranks(lazy_order, 2)


def backward_order(rank, nproc):
    dist.init_process_group("bluefog")
    way = Way(in_backward=True, awc_blocks=1)
    model, optimizer = trained(way, rank)
    log, net = Log(model), model.module
    train_step(way, model, optimizer, rank, 4)
    log.events.clear()
    train_step(way, model, optimizer, rank, 5)  # only rank 0 uses the branch
    everything = list(range(len(model._cycle.blocks)))
    # One order on all ranks, though on rank 1 a block in the middle has no gradient.
    assert log.blocks("start") == [0, *reversed(everything[1:])]
    assert log.at(("start", 0)) < log.at("")
    outward = blocks_of(model, net.outward)
    if rank == 0:
        assert all(log.at(("start", b)) < log.at("grad twice.weight") for b in outward)
        assert log.at(("start", everything[1])) > log.at("grad attention.in_proj_weight")
    assert log.at(("wait", 0)) > log.at("grad outward.weight")  # AWC's, in its turn, the last
    return flat(model)


def test_exchanges_start_during_backward_in_one_order():
    run_ranks(backward_order, 2)


class Announces(nn.Module):
    """Tells the other rank, on `announce`, that the forward or the backward pass has come here."""

    def __init__(self, at, announce):
        super().__init__()
        self.at, self.announce = at, announce

    def forward(self, x):
        if self.at == "forward":
            self.announce()
        else:
            x.register_hook(lambda _: self.announce())
        return x


def traced_step(rank, nproc, in_backward):
    """Rank 1 keeps rank 0's exchange waiting until rank 0 is in the midst of computing."""
    dist.init_process_group("bluefog")
    shared, armed = store(f"trace {in_backward}"), []

    def announce():
        if armed:
            with record_function("announced"):
                shared.set("there", "yes")

    at = "backward" if in_backward else "forward"
    layers = [nn.Linear(6, 6), Announces(at, announce), nn.Linear(6, 6), nn.Linear(6, 6)]
    layers = layers if in_backward else [nn.Identity(), layers[1], layers[0], *layers[2:]]
    model = bf.DecentralizedDataParallel(
        nn.Sequential(*layers).double(),
        algorithm="atc",
        topology=TOPOLOGY,
        bucket_cap_mb=1e-4,
        lazy_combine=True,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if in_backward:
        model.step_in_backward(optimizer)
    spans = {}

    def step(at, held_back=False):
        with record_function("forward"):
            loss = model(batch(rank, at)).square().mean()
        if held_back and in_backward:
            shared.wait(["there"])
        with record_function("backward"):
            loss.backward()
        if held_back and not in_backward:
            shared.wait(["there"])
        optimizer.step()

    for at in range(2):
        step(at)
    model.settle()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        armed += [rank == 0] * (rank == 0 and in_backward)
        step(2, held_back=rank == 1)
        armed += [True] * (rank == 0)
        step(3)
        model.settle()
    for event in trace.events():
        spans.setdefault(event.name, []).append((event.time_range.start, event.time_range.end))
    return spans


def overlaps(spans, with_what):
    """Whether the first exchange begins before, and ends after, the other rank was let go."""
    begin, end = min(spans["bluefog:neighbor_allreduce"])
    announced = min(spans["announced"])[0]
    around = next(span for span in spans[with_what] if span[0] <= announced <= span[1])
    return begin < announced < end and around[0] <= announced <= around[1]


def test_trace_shows_exchange_under_backward():
    assert overlaps(run_ranks(traced_step, 2, True)[0], "backward")


def test_trace_shows_exchange_under_forward():
    assert overlaps(run_ranks(traced_step, 2, False)[0], "forward")


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(6, 6) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for layer in (self.second, self.third):
            if self.reentrant is None:
                x = layer(x)
            else:
                x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return x


class Compiled(Checkpointed):
    def __init__(self):
        super().__init__(None)
        inner = nn.Sequential(self.second, self.third)
        self.both = torch.compile(inner, fullgraph=True, backend="aot_eager")

    def forward(self, x):
        return self.both(torch.tanh(self.first(x)))


def plain_loss(model, x):
    return model(x).square().mean()


def penalized_loss(model, x):
    """With a backward pass of its own, in which no parameter gets a gradient."""
    x.requires_grad_()
    y = model(x)
    slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    return y.square().mean() + slope.square().mean()


def run(rank, net, algorithm, in_backward, loss_of=plain_loss):
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    model = bf.DecentralizedDataParallel(
        net.double(),
        algorithm=algorithm,
        topology=TOPOLOGY,
        bucket_cap_mb=1e-4,
        lazy_combine=True,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if in_backward:
        model.step_in_backward(optimizer)
    for step in range(4):
        optimizer.zero_grad()
        loss_of(model, batch(rank, step)).backward()
        optimizer.step()
        if step == 2:
            torch._dynamo.config.error_on_recompile = True
    torch._dynamo.config.error_on_recompile = False
    model.settle()
    return flat(model)


def other_passes(rank, nproc):
    dist.init_process_group("bluefog")
    for algorithm in ("awc", "atc"):
        plain = run(rank, Checkpointed(None), algorithm, False)
        for in_backward in (False, True):
            for reentrant in (False, True):
                same = run(rank, Checkpointed(reentrant), algorithm, in_backward)
                assert torch.equal(same, plain), (algorithm, in_backward, reentrant)
        penalized = [
            run(rank, Checkpointed(None), algorithm, way, penalized_loss) for way in (False, True)
        ]
        assert torch.equal(*penalized) and not torch.equal(penalized[0], plain)
    for in_backward in (False, True):
        assert torch.equal(run(rank, Compiled(), "atc", in_backward), plain)
        whole = torch.compile(Checkpointed(None), fullgraph=True, backend="aot_eager")
        assert torch.equal(run(rank, whole, "atc", in_backward), plain)
        in_place = Checkpointed(None)
        in_place.second.compile(fullgraph=True, backend="aot_eager")
        assert torch.equal(run(rank, in_place, "atc", in_backward), plain)


def test_checkpoints_penalties_and_compiled_parts():
    run_ranks(other_passes, 2, timeout=240)


def memory(rank, nproc):
    """Two pieces of memory for what is exchanged, nothing for sending, and no gradients."""
    dist.init_process_group("bluefog")
    for in_backward in (False, True):
        way = Way(in_backward=in_backward)
        model, _ = trained(way, rank, steps=2, cap_mb=CAP_MB)
        for block in model._cycle.blocks:
            assert block.nbytes() == 2 * block["x"].nbytes
            exact = sum(tensor.nbytes for tensor in block.tensors)
            assert exact <= block["x"].nbytes < exact + 64 * len(block.tensors)
        loss_of(model, rank, 2).backward()
        held = [p.grad for p in model.parameters() if p.grad is not None]
        nbytes = sum(torch.Tensor.untyped_storage(g).nbytes() for g in map(unguarded, held))
        assert nbytes == (8 * len(held) if in_backward else sum(g.nbytes for g in held))


def unguarded(gradient):
    with torch._C.DisableTorchFunctionSubclass():
        return gradient.as_subclass(torch.Tensor)


def test_memory():
    run_ranks(memory, 2)
