"""What is measured: an operation on tensors of one size over one topology."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

import bluefog_pg as bf
from bluefog_pg.group import resolve
from bluefog_pg.topology import recv_weights, send_ranks
from harness.world import World

RAMP = 64  # inputs are i % RAMP + OFFSET * rank, so that sums over 8 ranks are exact in float16
OFFSET = 8

Block = tuple[float, float]
"""(a, b): as many elements as the input has, element i being a * (i % RAMP) + b."""


@dataclass(frozen=True)
class Contender:
    """Made by all ranks together.

    call: runs the operation once, as step `step` of the topology.
    count_wrong: runs it again and returns how many of this rank's results are wrong; None where
        there is nothing to be right.
    """

    call: Callable[[int], object]
    count_wrong: Callable[[], int | None]


@dataclass(frozen=True)
class Round:
    """What this rank does in one step of the topology: weights by source, and destinations."""

    self_weight: float
    sources: dict[int, float]
    destinations: list[int]


@dataclass(frozen=True)
class Case:
    """`label` is the topology's name; `rounds` are its steps, one for a static one."""

    world: World
    label: str
    nbytes: int
    dtype: torch.dtype
    rounds: list[Round]

    @property
    def numel(self) -> int:
        return max(1, self.nbytes // self.dtype.itemsize)

    @property
    def degree(self) -> int:
        """The most messages that this rank receives in a step."""
        return max(len(step.sources) for step in self.rounds)

    @cached_property
    def x(self) -> torch.Tensor:
        """The input, in ordinary memory, for all contenders."""
        return self.fill(torch.empty(self.numel, dtype=self.dtype))

    @cached_property
    def y(self) -> torch.Tensor:
        """An output, in ordinary memory, for all contenders."""
        return torch.zeros_like(self.x)

    @cached_property
    def gathered(self) -> torch.Tensor:
        """Room for what all in-neighbours send."""
        return torch.zeros(self.degree * self.numel, dtype=self.dtype)

    @property
    def received(self) -> list[torch.Tensor]:
        """That room, by in-neighbour."""
        return list(self.gathered.split(self.numel))

    def own(self) -> torch.Tensor:
        """Zeros in memory of the backend's own, which neighbours read in place."""
        return bf.empty(self.numel, dtype=self.dtype, group=self.world.bluefog).zero_()

    def fill(self, x: torch.Tensor) -> torch.Tensor:
        """Writes this rank's input into `x` and returns it."""
        for part in x.split(RAMP << 14):
            part.copy_(torch.arange(part.numel()) % RAMP + OFFSET * self.world.rank)
        return x

    def wrong(self, output: torch.Tensor, blocks: list[Block], roundings: int = 0) -> int:
        """Counts elements off by more than so many roundings, of results that are above 0."""
        count = 0
        tolerance = roundings * torch.finfo(self.dtype).eps / 2
        for block, (factor, offset) in zip(output.split(self.numel), blocks, strict=True):
            for part in block.split(RAMP << 14):
                expected = factor * (torch.arange(part.numel()) % RAMP) + offset
                close = (part.double() - expected).abs() <= tolerance * expected
                count += part.numel() - int(close.sum())  # NaN is not close
        return count


def rounds_of(topology: str, world: World) -> list[Round]:
    """Makes `topology` the group's and returns its steps. Collective."""
    graph = resolve(topology, world.size)
    for group in (world.bluefog, world.tcp):
        bf.set_topology(graph, group=group)
    is_schedule = isinstance(graph, bf.Schedule)
    steps = [graph(step) for step in range(graph.period or 1)] if is_schedule else [graph]
    return [Round(*recv_weights(g, world.rank), send_ranks(g, world.rank)) for g in steps]
