"""One model of an optimizer: its parameters in blocks, and when they communicate."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bluefog_pg.blocks.block import AVERAGED_DTYPES, Block
from bluefog_pg.blocks.flat import split_into_buckets
from bluefog_pg.blocks.network import Network

BUCKET_BYTES = 25 << 20  # most that goes as one exchange


class Part:
    """Counts the passes of a model, and averages its parameters when it is told to.

    Parameters live in blocks, see `Block`; one whose `.data` has been replaced is taken in again.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], network: Network, every: int
    ) -> None:
        self.model, self.parameters = model, list(parameters)
        self._network, self._every = network, every
        self._left = every
        self._has_warned = False
        self.is_under_way = False
        self._make_blocks()

    @property
    def is_due(self) -> bool:
        """Whether `every` passes have been counted since `restart`."""
        return self._left <= 0

    def count(self) -> bool:
        """Counts a pass; returns whether it is the one that communicates."""
        self._left -= 1
        if self._left < 0 and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"Unexpected behavior: more than num_steps_per_communication={self._every} passes "
                "of the model since the last step() that communicated; only one communicates",
                stacklevel=4,
            )
        return self._left == 0

    def restart(self) -> None:
        """Counts from 0 again."""
        self._left = self._every

    @torch.no_grad()
    def start(self, over: Any) -> None:
        """Starts to average the parameters; returns at once."""
        if not all(block.is_current() for block in self.blocks):
            self._make_blocks()
        self.is_under_way = True
        for block in self.blocks:
            block.start("x", over=over)

    @torch.no_grad()
    def finish(self) -> None:
        """Waits for the averages and puts them in place; none is, if any has failed."""
        if not self.is_under_way:
            return
        self.is_under_way = False
        try:
            for block in self.blocks:
                block.wait()
            for block in self.blocks:
                block.finish()
        except BaseException:
            for block in self.blocks:
                block.abandon()
            raise

    @torch.no_grad()
    def average_gradients(self) -> None:
        """Replaces gradients by their means over all ranks."""
        for block in self.blocks:
            block.start_gradient()
        for block in self.blocks:
            block.finish_gradient()

    def _make_blocks(self) -> None:
        buckets = split_into_buckets(self.parameters, BUCKET_BYTES)
        self.blocks = [Block(tensors, self._network, i) for i, tensors in enumerate(buckets)]


def parameters_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Returns the trainable parameters of a model that the optimizer holds, in the model's order.

    Raises:
        ValueError: there are none.
        TypeError: one is of a dtype that cannot be averaged.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) in held}
    if not found:
        raise ValueError(
            f"the optimizer holds no trainable parameter of the model {type(model).__name__}: give "
            "the model whose parameters() the optimizer was made with"
        )
    for name, parameter in found.items():
        if parameter.dtype not in AVERAGED_DTYPES:
            raise TypeError(f"parameter {name} of {parameter.dtype} cannot be averaged")
    return [*found.values()]
