"""Optimizer steps in backward(): a block of parameters steps once its gradients are there."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.versions import share_versions
from bluefog_pg.ddp.guards import TakenGradient


class BackwardStep:
    """Whose turn it is, and the step of the user's optimizers for just that block.

    A backward pass goes from the last layers to the first, so blocks have their turns from the last
    to the first, in whatever order a rank's gradients come in: a step is followed by an exchange,
    and all ranks post theirs in the same order.
    """

    def __init__(self, optimizers: Sequence[Optimizer], names: Mapping[int, str]) -> None:
        """
        Args:
            names: of parameters, by id(), for messages.

        Raises:
            TypeError: not a torch optimizer.
            ValueError: an optimizer needs a closure, or hooks act before its step().
        """
        for optimizer in optimizers:
            _check(optimizer)
        self.has_begun = False
        """Whether gradients have arrived since `begin`."""
        self.optimizers, self._names = list(optimizers), names
        self._blocks: list[Block] = []
        self._missing: list[set[int]] = []
        self._turn = 0
        self._taken: dict[int, TakenGradient] = {}
        self._hooks: list[Any] = []

    def take(self, blocks: Sequence[Block]) -> None:
        """Works on these from now on.

        Raises:
            ValueError: a parameter belongs to no optimizer, or shares a tensor with another block.
        """
        self._check_parameters(blocks)
        self._blocks = [*reversed(blocks)]
        self._place = {
            id(tensor): place
            for place, block in enumerate(self._blocks)
            for tensor in block.tensors
        }
        self.close()
        for place, block in enumerate(self._blocks):
            for tensor in block.tensors:
                self._hooks.append(tensor.register_hook(self._before_gradient(place, tensor)))
        self.begin()

    def close(self) -> None:
        """Lets go of the parameters."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def begin(self) -> None:
        """The last step is over, and gradients may come again."""
        self.forget_gradients()
        self.has_begun, self._turn = False, 0
        self._missing = [{id(tensor) for tensor in block.tensors} for block in self._blocks]

    def arrived(self, parameter: torch.Tensor) -> Iterator[Block]:
        """Gives the blocks whose turn it is now that a parameter's gradient is complete."""
        self.has_begun = True
        self._missing[self._place[id(parameter)]].discard(id(parameter))
        while self._turn < len(self._blocks) and not self._missing[self._turn]:
            self._turn += 1
            yield self._blocks[self._turn - 1]

    def rest(self) -> Iterator[Block]:
        """Gives the blocks that have not had their turn."""
        while self._turn < len(self._blocks):
            self._turn += 1
            yield self._blocks[self._turn - 1]

    def step(self, block: Block) -> None:
        """Steps all optimizers for these parameters only, and frees the gradients."""
        members = {id(tensor) for tensor in block.tensors}
        for optimizer in self.optimizers:
            with _narrowed(optimizer, members):
                if optimizer.param_groups:
                    _step(optimizer)
        for tensor in block.tensors:
            if tensor.grad is not None:
                tensor.grad = self._taken[id(tensor)] = TakenGradient.like(tensor)

    def forget_gradients(self) -> None:
        """Gradients that have been used are None from now on."""
        for block in self._blocks if self._taken else []:
            for tensor in block.tensors:
                if isinstance(tensor.grad, TakenGradient):
                    tensor.grad = None
        self._taken.clear()

    def _check_parameters(self, blocks: Sequence[Block]) -> None:
        if share_versions(blocks):
            raise ValueError(
                "step_in_backward: parameters are views of one tensor, so autograd cannot tell "
                "which of them has changed; give each its own memory, nn.Parameter(value.clone())"
            )
        held = {id(p) for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for tensor in (tensor for block in blocks for tensor in block.tensors):
            if id(tensor) not in held:
                raise ValueError(
                    f"step_in_backward got no optimizer that holds {self._name_of(tensor)}: "
                    "give it all optimizers of the model, or freeze the parameter"
                )

    def _before_gradient(self, place: int, parameter: torch.Tensor) -> Callable[..., None]:
        def hook(_: torch.Tensor) -> None:
            if place < self._turn:
                raise RuntimeError(
                    f"a gradient of {self._name_of(parameter)} came after backward() had stepped "
                    "it (step_in_backward): put all backward passes of a step but the last into "
                    "no_sync(), with their forward passes; where a parameter is in several "
                    "checkpoints, make them with use_reentrant=False"
                )

        return hook

    def _name_of(self, parameter: torch.Tensor) -> str:
        return self._names.get(id(parameter), f"a parameter of shape {tuple(parameter.shape)}")


def _check(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"step_in_backward takes torch optimizers, got {optimizer!r}")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__}.step() runs backward() itself (a closure) and cannot run "
            "in it; leave step_in_backward out"
        )
    _check_hooks(optimizer)


def _check_hooks(optimizer: Optimizer) -> None:
    if optimizer._optimizer_step_pre_hooks:
        raise ValueError(
            f"{type(optimizer).__name__} has hooks that act before its step(), for all parameters "
            "at once (register_step_pre_hook); step_in_backward steps for a few at a time: leave "
            "one of the two out"
        )


@contextmanager
def _narrowed(optimizer: Optimizer, members: set[int]) -> Iterator[None]:
    """Leaves the optimizer only parameters with an id() in `members`, and groups that have any.

    Raises:
        RuntimeError: a group has changed meanwhile, which has then happened for some parameters of
            it and would again for the others.
    """
    groups = optimizer.param_groups
    whole = [group["params"] for group in groups]
    before = [{**group, "params": None} for group in groups]
    try:
        for group, params in zip(groups, whole, strict=True):
            group["params"] = [p for p in params if id(p) in members]
        optimizer.param_groups = [group for group in groups if group["params"]]
        yield
    finally:
        optimizer.param_groups = groups
        for group, params in zip(groups, whole, strict=True):
            group["params"] = params
    for group, old in zip(groups, before, strict=True):
        for name, value in group.items():
            if name != "params" and value is not old.get(name):
                raise RuntimeError(
                    f"{type(optimizer).__name__}.step() changes {name!r} of its parameter groups, "
                    "so it cannot step for a few parameters at a time; leave step_in_backward out"
                )


def _step(optimizer: Optimizer) -> None:
    """Calls step() without the hooks and counters around it: they belong to the user's own call."""
    _check_hooks(optimizer)
    step = type(optimizer).step
    step = step.__wrapped__ if getattr(step, "hooked", False) else step
    step(optimizer)
