"""A training step: DecentralizedDataParallel beside DDP, decent-dp and exchanges by hand.

    python benchmarks/ddp_step.py --ranks 4 --model resnet18

Batches of 8 images and one thread per rank, plain SGD, float32. A sample is a block of steps, timed
from the first rank's start to the last one's end; contenders take turns. algbw = S / t with the S
bytes of the parameters. #wrong counts parameters that are not the average over all ranks after as
many steps with a learning rate of 0 as the one-peer exponential graph needs to get there (DDP: that
are not the same on all ranks).
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from harness import rivals
from harness.benchmark import Arguments, Benchmark, main
from harness.case import Case, Contender, rounds_of
from harness.measure import Make
from harness.world import World
from models import CLASSES, MODELS
from torch import nn

import bluefog_pg as bf

BATCH = 8
LEARNING_RATE = 0.01
TOPOLOGY = "one_peer_exponential"
QUICK_WIDTHS = {"mlp": 64, "resnet18": 8}
Step = Callable[[int], object]


@dataclass(frozen=True)
class Training(Case):
    make_model: Callable[[], nn.Module]


def cases(world: World, args: Arguments) -> Iterator[Training]:
    rounds = rounds_of(TOPOLOGY, world)
    for name in args.labels:
        width = {"width": QUICK_WIDTHS[name]} if args.quick else {}
        make = partial(MODELS[name], **width)
        nbytes = sum(p.nbytes for p in make().parameters())
        yield Training(world, name, nbytes, torch.float32, rounds, make)


def contenders(case: Training) -> dict[str, Make]:
    ways = {
        "bluefog": lambda: bluefog(case),
        "no communication": lambda: alone(case),
        "gloo, flat": lambda: flat(case, rivals.over_gloo),
        "decent-dp": lambda: decent_dp(case),
        "DDP on gloo": lambda: ddp(case),
    }
    return ways | ({"mpi, flat": lambda: flat(case, rivals.over_mpi)} if case.world.mpi else {})


def bus(case: Training) -> float:
    return 1.0


def passes(case: Training) -> dict[str, float]:
    """None: the step without communication is the bound."""
    return {}


def count_wrong(case: Training, step: Step, model: nn.Module, optimizers: Iterable) -> int:
    """Leaves the learning rate at 0."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    means = [mean(case.world, p) for p in model.parameters()]
    for at in range(len(case.rounds)):
        step(at)
    return sum(
        p.numel() - int(torch.isclose(p, m, rtol=1e-5, atol=1e-7).sum())
        for p, m in zip(model.parameters(), means, strict=True)
    )


@torch.no_grad()
def mean(world: World, x: torch.Tensor) -> torch.Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total / world.size


def bluefog(case: Training) -> Contender:
    model = model_of(case)
    wrapped = bf.DecentralizedDataParallel(
        model, topology=TOPOLOGY, process_group=case.world.bluefog
    )
    return training(case, wrapped, model)


def alone(case: Training) -> Contender:
    model = model_of(case)
    return Contender(train_step(case, model, [sgd(model.parameters())]), lambda: None)


def ddp(case: Training) -> Contender:
    model = model_of(case)
    wrapped = nn.parallel.DistributedDataParallel(
        model, process_group=case.world.gloo, gradient_as_bucket_view=True
    )
    return training(case, wrapped, model)


def flat(case: Training, over: Callable[..., rivals.Exchange]) -> Contender:
    """SGD, then one exchange of all parameters, which are views of one tensor."""
    model = model_of(case)
    parameters = list(model.parameters())
    values = torch.cat([p.detach().reshape(-1) for p in parameters])
    parts = values.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    received = torch.zeros_like(values)
    exchange = over(case, values, [received])
    optimizers = [sgd(parameters)]
    train = train_step(case, model, optimizers)

    def step(at: int) -> None:
        train(at)
        exchange(at)
        values.lerp_(received, 0.5)

    return Contender(step, partial(count_wrong, case, step, model, optimizers))


def decent_dp(case: Training) -> Contender:
    """It makes and steps the optimizers itself, one per bucket, in backward()."""
    importlib.import_module("loguru").logger.disable("decent_dp")
    module = importlib.import_module("decent_dp.ddp")
    optimizers: list[torch.optim.Optimizer] = []

    def make(named: list[tuple[str, torch.Tensor]]) -> torch.optim.Optimizer:
        optimizers.append(sgd([parameter for _, parameter in named]))
        return optimizers[-1]

    model = model_of(case)
    wrapped = module.DecentralizedDataParallel(model, make, topology="one-peer-exp")
    step = train_step(case, wrapped, [])
    return Contender(step, partial(count_wrong, case, step, model, optimizers))


def training(case: Training, wrapped: nn.Module, model: nn.Module) -> Contender:
    optimizers = [sgd(model.parameters())]
    step = train_step(case, wrapped, optimizers)
    return Contender(step, partial(count_wrong, case, step, model, optimizers))


def train_step(case: Training, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Step:
    generator = torch.Generator().manual_seed(case.world.rank)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)

    def step(_: int) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def model_of(case: Training) -> nn.Module:
    torch.manual_seed(0)
    return case.make_model()


def sgd(parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LEARNING_RATE)


if __name__ == "__main__":
    main(
        Benchmark(
            __doc__,
            contenders,
            bus,
            passes,
            tuple(MODELS),
            label="model",
            ranks=(2, 4),
            seconds=0.5,
            cases=cases,
        )
    )
