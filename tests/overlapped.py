"""What the tests of overlap share: a model with all ways to use a parameter, its serial run, a log.

A step is x' = W step(x), where step() is the optimizer's; the first `awc_blocks` blocks go by
x' = step(W x). Gradients are those at x for both.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import bluefog_pg as bf
from bluefog_pg.blocks.flat import split_into_buckets
from bluefog_pg.topology import mixing_matrix

CAP_MB = 2e-4  # about 200 bytes, or one tensor: 12 blocks
EACH_MB = 7e-5  # a block for each parameter
LR = 0.1


class Network(nn.Module):
    """Layers that are shared, called twice, never called themselves, or that some ranks skip."""

    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)  # never calls its out_proj
        self.norm = nn.LayerNorm(8)
        self.twice = nn.Linear(8, 8)
        self.branch = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(()))  # of the root
        self.outward = nn.Linear(8, 6)

    def forward(self, x, use_branch=False):
        h = self.inward(x)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        h = self.twice(torch.relu(self.twice(self.norm(h))))
        if use_branch:
            h = self.branch(h)
        h = self.outward(h * self.scale)
        return nn.functional.linear(h, self.inward.weight)  # once more, without a call


def make_network(seed=0):
    torch.manual_seed(seed)
    return Network().double()


def batch(rank, step):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)


def uses_branch(rank, step):
    """Everybody at step 2, then rank 0 only; nobody before, so that one forward pass knows not."""
    return step == 2 or (step > 2 and rank == 0)


def loss_of(model, rank, step):
    return model(batch(rank, step), uses_branch(rank, step)).square().mean()


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@dataclass(frozen=True)
class Way:
    """One way to run ATC."""

    lazy: bool = True
    in_backward: bool = False
    awc_blocks: int = 0
    micro_batches: int = 1
    optimizer: str = "SGD"
    options: dict[str, Any] = field(default_factory=lambda: {"lr": LR})

    def __str__(self):
        words = [self.optimizer, "lazy" * self.lazy, "in_backward" * self.in_backward]
        counts = [f"{self.awc_blocks}awc", f"{self.micro_batches}micro"]
        return "-".join(word for word in words + counts if word)

    def make_optimizer(self, model):
        """Two groups, so that blocks and groups do not coincide."""
        parameters = list(model.parameters())
        groups = [{"params": parameters[::2]}, {"params": parameters[1::2], "weight_decay": 0.01}]
        return getattr(torch.optim, self.optimizer)(groups, **self.options)


def make(way, topology, seed=0, cap_mb=CAP_MB):
    """Returns the wrapped model and its optimizer."""
    model = bf.DecentralizedDataParallel(
        make_network(seed),
        algorithm=bf.algorithms.ATC(awc_blocks=way.awc_blocks),
        topology=topology,
        bucket_cap_mb=cap_mb,
        lazy_combine=way.lazy,
    )
    optimizer = way.make_optimizer(model)
    if way.in_backward:
        model.step_in_backward(optimizer)
    return model, optimizer


def train_step(way, model, optimizer, rank, step):
    optimizer.zero_grad()
    for micro in range(way.micro_batches - 1):
        with model.no_sync():
            loss_of(model, rank + 100 * (micro + 1), step).backward()
    loss_of(model, rank, step).backward()
    optimizer.step()


def serial_run(way, topology, nproc, steps):
    """All ranks in one process. Returns their parameters, shape (nproc, dim)."""
    models = [make_network() for _ in range(nproc)]
    optimizers = [way.make_optimizer(model) for model in models]
    first = split_into_buckets(models[0].parameters(), int(CAP_MB * 2**20))[: way.awc_blocks]
    is_awc = {id(p) for block in first for p in block}
    awc = torch.cat([torch.full((p.numel(),), id(p) in is_awc) for p in models[0].parameters()])
    for step in range(steps):
        graph = topology(step) if isinstance(topology, bf.Schedule) else topology
        w = torch.from_numpy(mixing_matrix(graph))
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            for micro in range(way.micro_batches):
                loss_of(model, rank + 100 * micro, step).backward()
        _mix(models, w, awc)
        for optimizer in optimizers:
            optimizer.step()
        _mix(models, w, ~awc)
    return torch.stack([flat(model) for model in models])


def _mix(models, w, where):
    x = torch.stack([flat(model) for model in models])
    for model, values in zip(models, torch.where(where, w @ x, x), strict=True):
        nn.utils.vector_to_parameters(values, model.parameters())


class Log:
    """What happens in steps of a model, in order.

    Its events are ("start", block) and ("wait", block), names of modules that begin their forward
    pass ("" is the root), and "grad " with the name of a parameter whose gradient is there.
    """

    def __init__(self, model):
        model.settle()  # exchanges from before are not in it
        self.events = []
        self._network, self._blocks = model._cycle.network, model._cycle.blocks
        self._start, self._wait, self._of_work = self._network.start, self._network.wait, {}
        self._network.start, self._network.wait = self._logged_start, self._logged_wait
        for name, module in model.module.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.events.append(name))
        for name, parameter in model.module.named_parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda *_, name=name: self.events.append(f"grad {name}")
            )

    def at(self, event):
        """Its first place in the order."""
        return self.events.index(event)

    def blocks(self, kind):
        """The numbers of the blocks with "start" or "wait" events."""
        return [event[1] for event in self.events if event[:1] == (kind,)]

    def _logged_start(self, values, arrivals, over, steps_ago=0):
        of = (b for b in self._blocks if b["x"].data_ptr() == values[0].data_ptr())
        block = next(of).index
        work = self._start(values, arrivals, over, steps_ago)
        self._of_work[id(work)] = block, work  # keeps it alive, so that the id is its own
        self.events.append(("start", block))
        return work

    def _logged_wait(self, work):
        self.events.append(("wait", self._of_work.pop(id(work))[0]))
        self._wait(work)


def blocks_of(model, module):
    """The numbers of the blocks that hold parameters of a module."""
    mine = {id(p) for p in module.parameters()}
    return [b.index for b in model._cycle.blocks if any(id(t) in mine for t in b.tensors)]
