"""Training scripts in one process: what DecentralizedDataParallel must do, written with matrices.

A `Script` is what a user's loop does on one rank, given a model that may or may not be wrapped;
`expected` runs it for all ranks, with plain modules, and averages by W in between.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import bluefog_pg as bf
from bluefog_pg.topology import mixing_matrix

TOPOLOGIES = {
    "awc": "one_peer_exponential",
    "atc": "one_peer_exponential",
    "gradient_tracking": "exponential",
}


class Net(nn.Module):
    """A frozen layer, a BatchNorm, a branch that not all ranks use, a part that is recomputed."""

    def __init__(self, seed, recompute=None):
        super().__init__()
        torch.manual_seed(seed)
        self.frozen = nn.Linear(4, 6).requires_grad_(False)
        self.norm = nn.BatchNorm1d(6)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        self.recompute = recompute

    def forward(self, x, use_b):
        x = self.a(self.norm(self.frozen(x)))
        x = self.b(x) if use_b else x
        if self.recompute is None:
            return {"y": [self.last(x)]}
        return {"y": [checkpoint(self.last, x, use_reentrant=self.recompute == "reentrant")]}


@dataclass(frozen=True)
class Script:
    """One way of writing the loop."""

    steps: int = 5
    micro_batches: int = 1
    clip: float | None = None
    split_optimizers: bool = False
    step_in_backward: bool = False
    recompute: str | None = None
    dtype: torch.dtype = torch.float64
    autocast: bool = False
    infinities: dict[int, int] = field(default_factory=dict)
    """Step -> the rank whose loss is infinite then; goes with a GradScaler."""
    scaler: Callable[[], torch.amp.GradScaler] | None = None
    batches: tuple[int, ...] = ()
    """How many steps each rank has data for; default: all."""

    def net(self, seed=0):
        return Net(seed, self.recompute).to(self.dtype)

    def optimizers(self, net):
        """Two groups with options of their own, in one optimizer or in two."""
        heads = {"params": list(net.last.parameters()), "lr": 0.05, "momentum": 0.9}
        others = [p for name, p in net.named_parameters() if not name.startswith("last")]
        groups = [{"params": others}, heads]
        groups = [[group] for group in groups] if self.split_optimizers else [groups]
        return [torch.optim.SGD(group, lr=0.1) for group in groups]

    def schedulers(self, optimizers):
        return [torch.optim.lr_scheduler.StepLR(each, 2, gamma=0.5) for each in optimizers]

    def loss(self, model, rank, step, micro):
        generator = torch.Generator().manual_seed(1000 * rank + 10 * step + micro)
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64).to(self.dtype) + rank
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            y = model(x, use_b=rank == 0 or step == 1)["y"][0]
        infinite = self.infinities.get(step) == rank
        return y.square().sum() * (torch.inf if infinite else 1)

    def gradients(self, model, optimizers, rank, step, before_last=lambda: None, scaler=None):
        """zero_grad, backward of all micro-batches, clipping. before_last: before the last one."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        no_sync = getattr(model, "no_sync", contextlib.nullcontext)
        for micro in range(self.micro_batches):
            last = micro == self.micro_batches - 1
            if last:
                before_last()
            with contextlib.nullcontext() if last else no_sync():
                loss = self.loss(model, rank, step, micro)
                (scaler.scale(loss) if scaler else loss).backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)

    def train(self, model, rank):
        """The loop on one rank, with a wrapped model."""
        optimizers = self.optimizers(model.module)
        schedulers = self.schedulers(optimizers)
        scaler = self.scaler() if self.scaler else None
        if self.step_in_backward:
            model.step_in_backward(*optimizers)
        for step in range(self.batches[rank] if self.batches else self.steps):
            self.gradients(model, optimizers, rank, step, scaler=scaler)
            for optimizer in optimizers:
                scaler.step(optimizer) if scaler else optimizer.step()
            if scaler:
                scaler.update()
            for scheduler in schedulers:
                scheduler.step()
        return model


def trained(net):
    return [p for p in net.parameters() if p.requires_grad]


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def gradient(net):
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in trained(net)])


def statistics_of(net):
    return [net.norm.running_mean, net.norm.running_var]


def put(tensors, values):
    """Copies a flat tensor to many."""
    parts = values.split([t.numel() for t in tensors])
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


class Serial:
    """All ranks of a script, step by step."""

    def __init__(self, script, algorithm, nproc, everybody_skips):
        self.script, self.algorithm, self.everybody_skips = script, algorithm, everybody_skips
        self.ranks = range(nproc)
        self.nets = [script.net() for _ in self.ranks]
        self.optimizers = [script.optimizers(net) for net in self.nets]
        self.schedulers = [script.schedulers(each) for each in self.optimizers]
        self.y = self.g = torch.zeros_like(self.all(trained))

    def all(self, tensors_of):
        """One row per rank."""
        return torch.stack([flat(tensors_of(net)) for net in self.nets])

    def put_all(self, tensors_of, rows):
        for net, row in zip(self.nets, rows, strict=True):
            put(tensors_of(net), row)

    def has_data(self, rank, step):
        return not self.script.batches or step < self.script.batches[rank]

    def skips(self, rank, step):
        infinite = self.script.infinities.get(step)
        return infinite is not None and (rank == infinite or self.everybody_skips)

    def step(self, step):
        n = len(self.nets)
        graph = bf.topology.get(TOPOLOGIES[self.algorithm])(n)
        graph = graph(step) if isinstance(graph, bf.Schedule) else graph
        w = torch.from_numpy(mixing_matrix(graph)).to(self.g.dtype)
        buffers = self.all(statistics_of)
        for rank in self.ranks:
            self.nets[rank].zero_grad()
            if self.has_data(rank, step):
                buffers[rank] = self.gradients(rank, step)
        if self.algorithm == "gradient_tracking":
            self.track(w, step)
        before = self.all(trained)
        for rank in self.ranks:
            self.optimize(rank, step)
        after = self.all(trained)
        late = self.algorithm == "awc"
        self.put_all(trained, w @ before + (after - before) if late else w @ after)
        self.put_all(statistics_of, self.all(statistics_of) + w @ buffers - buffers)

    def gradients(self, rank, step):
        """Returns the BatchNorm statistics as they are when the exchange starts."""
        sent = []
        net = self.nets[rank]
        self.script.gradients(
            net, self.optimizers[rank], rank, step, lambda: sent.append(flat(statistics_of(net)))
        )
        return sent[0]

    def track(self, w, step):
        """y <- W (y + g - g_old), with g unchanged where it is skipped; y is the gradient."""
        g = torch.stack([gradient(net) for net in self.nets])
        for rank in self.ranks:
            if self.skips(rank, step):
                g[rank] = self.g[rank]
        self.y = self.y + g - self.g
        self.y = w @ self.y if step > 0 else self.y
        self.g = g
        for net, row in zip(self.nets, self.y, strict=True):
            for parameter in trained(net):
                parameter.grad = torch.empty_like(parameter)
            put([parameter.grad for parameter in trained(net)], row)

    def optimize(self, rank, step):
        if not self.has_data(rank, step):
            return
        for optimizer, scheduler in zip(self.optimizers[rank], self.schedulers[rank], strict=True):
            if not self.skips(rank, step):
                optimizer.step()
            scheduler.step()


@contextlib.contextmanager
def one_thread():
    """Tensors are tiny: on a busy machine two threads are ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def expected(script, algorithm, nproc, everybody_skips=False):
    """Returns the parameters and BatchNorm statistics of each rank after the script.

    everybody_skips: whether all ranks skip the step in which one has met infinities.
    """
    serial = Serial(script, algorithm, nproc, everybody_skips)
    with one_thread():
        for step in range(script.steps):
            serial.step(step)
    return [(flat(net.parameters()), flat(statistics_of(net))) for net in serial.nets]
