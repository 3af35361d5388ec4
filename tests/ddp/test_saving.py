"""A run that was saved and loaded goes on as if nothing had happened, bit for bit."""

import io
from functools import partial

import torch
import torch.distributed as dist
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms

ALGORITHMS = ["awc", "atc", "gradient_tracking"]
TINY_BLOCKS = 1e-5  # MiB: a block per parameter


def make_module(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch(rank, step):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(6, 5, generator=generator, dtype=torch.float64) + rank


class Run:
    """A model, its optimizer and its scheduler, as a script has them."""

    def __init__(self, algorithm, seed=0, cap_mb=25, model=None, optimizer=torch.optim.Adam):
        self.model = model or bf.DecentralizedDataParallel(
            make_module(seed), algorithm=algorithm, bucket_cap_mb=cap_mb
        )
        self.optimizer = optimizer(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, gamma=0.5)

    def parts(self):
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def train(self, rank, steps):
        for step in steps:
            self.optimizer.zero_grad()
            self.model(batch(rank, step)).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
        return self

    def save(self):
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)
        return file.getvalue()

    def load(self, saved):
        for name, state in torch.load(io.BytesIO(saved)).items():
            self.parts()[name].load_state_dict(state)
        return self


def assert_equal_states(actual, expected):
    """Parameters, buffers and variables of the algorithm."""
    actual, expected = actual.model.state_dict(), expected.model.state_dict()
    mine, theirs = actual.pop("_extra_state"), expected.pop("_extra_state")
    assert mine["step"] == theirs["step"] and mine["variables"].keys() == theirs["variables"].keys()
    for name, variables in mine["variables"].items():
        actual |= {f"{name} {key}": value for key, value in variables.items()}
        expected |= {f"{name} {key}": v for key, v in theirs["variables"][name].items()}
    assert actual.keys() == expected.keys()
    for name in actual:
        assert torch.equal(actual[name], expected[name]), name


def resume(rank, nproc):
    """At step 5 of 10, in the middle of the schedule's period; with other blocks, too."""
    dist.init_process_group("bluefog")
    saved = {}
    for algorithm in ALGORITHMS:
        saved[algorithm] = Run(algorithm).train(rank, range(5)).save()
        whole = Run(algorithm).train(rank, range(10))
        for cap_mb in (25, TINY_BLOCKS):
            run = Run(algorithm, seed=9, cap_mb=cap_mb).load(saved[algorithm])
            assert run.model.statistics().steps == 5
            assert_equal_states(run.train(rank, range(5, 10)), whole)
        moved = Run(algorithm).train(rank, range(5))
        move_elsewhere(moved.model)
        assert_equal_states(moved.train(rank, range(5, 10)), whole)
        # Inside another module, whose load_state_dict knows nothing of us.
        pair = nn.ModuleList([Run(algorithm, seed=3).model])
        pair.load_state_dict(nn.ModuleList([whole.model]).state_dict())
        assert pair[0].statistics().steps == 10

    run = Run("gradient_tracking", seed=4)
    raises(
        ValueError,
        f"rank {rank}: the state is of algorithm='atc', the model has 'gradient_tracking'",
        'leave its "_extra_state" out',
        call=lambda: run.load(saved["atc"]),
    )
    assert torch.equal(run.model.module[0].weight, make_module(4)[0].weight)  # nothing is loaded
    everybody = [None] * nproc
    dist.all_gather_object(everybody, saved)
    if rank != 1:
        words = f"the state is of rank 1 of {nproc}, this is rank {rank} of {nproc}"
        raises(ValueError, words, call=lambda: run.load(everybody[1]["gradient_tracking"]))
    Run("awc").load(everybody[1]["awc"])  # has no variables, so any rank's will do


def move_elsewhere(model):
    """Other memory for the parameters, as `module.to()` and `load_state_dict(assign=True)` give."""
    model.settle()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def test_resumes_bit_for_bit():
    run_ranks(resume, 4, timeout=120)


def resume_everything(rank, nproc):
    """Every algorithm whose course is the same each time, at step 5 of 8."""
    dist.init_process_group("bluefog")
    for name in algorithms.names():
        if algorithms.get(name).asynchronous:  # see algorithms/test_asynchronous.py
            continue
        sgd = partial(Run, name, optimizer=torch.optim.SGD)
        whole = sgd().train(rank, range(8))
        saved = sgd().train(rank, range(5)).save()
        assert_equal_states(sgd(seed=9).load(saved).train(rank, range(5, 8)), whole)


def test_every_algorithm_resumes():
    run_ranks(resume_everything, 4, timeout=120)


def load_from_ddp(rank, nproc):
    """DDP's and plain modules' states load; the algorithm begins anew with them."""
    dist.init_process_group("bluefog")
    run = Run("gradient_tracking").train(rank, range(3))
    ddp = nn.parallel.DistributedDataParallel(make_module(7))
    for state in (ddp.state_dict(), make_module(7).state_dict()):
        run.model.load_state_dict(state)
        assert run.model.statistics().steps == 0
        fresh = Run("gradient_tracking", seed=7)
        assert_equal_states(run, fresh)
        again = Run("gradient_tracking", model=run.model).train(rank, range(3))
        assert_equal_states(again, fresh.train(rank, range(3)))

    state = run.model.state_dict()
    assert [name for name in state if name not in ddp.state_dict()] == ["_extra_state"]
    ddp.module.load_state_dict(run.model.module.state_dict())
    ddp.load_state_dict(state, strict=False)
    assert torch.equal(ddp.module[0].weight, run.model.module[0].weight)


def test_loads_states_of_ddp_and_of_modules():
    run_ranks(load_from_ddp, 2)


def freeze(rank, nproc):
    """What a frozen parameter has stays with it, also through saving, until it is trained again."""
    dist.init_process_group("bluefog")
    run = Run("gradient_tracking", cap_mb=TINY_BLOCKS).train(rank, range(3))
    before = clone(run.model.state_dict()["_extra_state"]["variables"])
    run.model.module[0].requires_grad_(False)
    run.train(rank, range(3, 5))
    again = Run("gradient_tracking", seed=5)
    again.model.module[0].requires_grad_(False)
    again.load(run.save())
    for each in (run, again):
        after = each.model.state_dict()["_extra_state"]["variables"]
        assert torch.equal(after["0.weight"]["y"], before["0.weight"]["y"])
        assert not torch.equal(after["3.weight"]["y"], before["3.weight"]["y"])
        each.model.module[0].requires_grad_(True)
        each.train(rank, range(5, 7))
    assert_equal_states(again, run)
    after = run.model.state_dict()["_extra_state"]["variables"]
    assert not torch.equal(after["0.weight"]["y"], before["0.weight"]["y"])
    run.model.module.float()  # the variables follow
    assert torch.equal(before_and_after_float(run, rank), after["0.weight"]["y"].float())


def clone(variables):
    return {n: {k: v.clone() for k, v in parts.items()} for n, parts in variables.items()}


def before_and_after_float(run, rank):
    run.model(batch(rank, 0).float())  # begins a step: tracking has not changed y yet
    (block,) = [b for b in run.model._cycle.blocks if b.tensors[0] is run.model.module[0].weight]
    return block.views("y")[0]


def test_variables_follow_parameters():
    run_ranks(freeze, 2)
