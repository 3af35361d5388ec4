"""The moments of a training step, in order, whatever the program does."""

from collections.abc import Callable, Sequence
from enum import Enum

import torch

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.buffers import BufferBlock
from bluefog_pg.blocks.network import Network
from bluefog_pg.ddp.backward_step import BackwardStep
from bluefog_pg.ddp.optimizers import OptimizerWatch, learning_rates


class State(Enum):
    """Which moment comes next.

    READY -> forward() -> FORWARD -> end of backward() -> GRADIENTS -> optimizer.step() -> READY

    With `step_in_backward` each block goes through its moments from the end of backward() on to the
    next forward pass by itself, and the end of backward() is followed by READY.

    A step that goes another way is taken to its end at the next forward pass: whatever a rank does
    locally, it starts and finishes as many exchanges per step as the others.
    """

    READY = "ready"
    FORWARD = "forward"
    GRADIENTS = "gradients"


class Cycle:
    """Tells an algorithm the moments of each step, for all blocks of parameters.

    Driven from three sides: `forward` by the wrapper, `backward_ended` by autograd, and the steps
    of the user's optimizers, which it watches for.
    """

    def __init__(self, algorithm: Algorithm, network: Network) -> None:
        self.algorithm = algorithm
        self.network = network
        self.blocks: list[Block] = []
        self.pending: list[Block] = []
        """Blocks whose averages a forward pass that has begun has yet to put in place."""
        self.in_backward: BackwardStep | None = None
        self.buffers: list[BufferBlock] = []
        self._state = State.READY
        self._told_before_step = False
        self._combined = True
        self._watch = OptimizerWatch(self._before_optimizer, self._after_optimizer)

    def take(self, blocks: Sequence[Block], buffers: Sequence[BufferBlock]) -> None:
        """Works on these from now on. Nothing is under way."""
        self.blocks, self.buffers = list(blocks), list(buffers)
        if self.in_backward:
            self.in_backward.take(self.blocks)
        self._watch.watch(tensor for block in blocks for tensor in block.tensors)

    @property
    def awaits_gradients(self) -> bool:
        """Whether the end of a backward pass is of interest."""
        return self._state is State.FORWARD

    @property
    def has_begun(self) -> bool:
        """Whether a forward pass would join one that has begun, and not begin a new step."""
        return self._state is State.FORWARD and not any(block.changed() for block in self.blocks)

    @torch.no_grad()
    def forward(self, late: bool = False) -> None:
        """A forward pass begins that backward() and a step follow. It joins one that has begun.

        late: as in `combine`.
        """
        if self.has_begun:
            return
        self.end_step()
        self.combine(late)
        self._state = State.FORWARD
        if self.in_backward:
            self.in_backward.begin()
        if self.algorithm.communicates(self.network.step):
            for buffers in self.buffers:
                buffers.start(self.algorithm.buffers_over)
        for block in self.blocks:
            block.learning_rates = [0.0] * len(block.tensors)
        self._tell(self.algorithm.before_forward)

    @torch.no_grad()
    def backward_ended(self) -> None:
        """All gradients of a backward pass are there."""
        if self._state is not State.FORWARD:
            return
        if self.in_backward:
            has_begun = self.in_backward.has_begun
            self._end_in_backward(
                self.in_backward, self._step_block if has_begun else self._skip_block
            )
            return
        self._state = State.GRADIENTS
        for block in self.blocks:
            block.check()
        self._tell(self.algorithm.gradients_ready)
        self._arrive(self.buffers)
        self._arrive(self.blocks)
        for buffers in self.buffers:
            buffers.finish()
        self._tell(self.algorithm.after_backward)

    def step_without_data(self) -> None:
        """A whole step with gradients of 0, and no optimizer. Replaces `grad` of all parameters."""
        self.settle()
        self.forward()
        for block in self.blocks:
            for tensor in block.tensors:
                tensor.grad = None
        if self.in_backward:
            self._end_in_backward(self.in_backward, self._idle_block)
            return
        self.backward_ended()
        self._tell_before_step()
        self._end_step(self.algorithm.after_step)

    def gradient_arrived(self, parameter: torch.Tensor) -> None:
        """A backward pass has added to a parameter's gradient what it has to add."""
        if self.in_backward:
            for block in self.in_backward.arrived(parameter):
                self._step_in_backward(block, self._step_block)

    @torch.no_grad()
    def settle(self) -> None:
        """Takes a step that has begun to its end: nothing is under way then, and x is final.

        Collective with an asynchronous algorithm.
        """
        self.end_step()
        self.combine()
        if self.algorithm.asynchronous:
            self._tell(self.algorithm.settling)
            self.network.barrier()  # all that was sent is there
            self._tell(self.algorithm.settled)
            self.network.barrier()  # nothing has been sent since

    @torch.no_grad()
    def combine(self, late: bool = False) -> None:
        """Parameters are about to be used: puts their averages in place.

        late: only begins that: a `combine_block` for each of `pending` may follow, and `combine`.
        """
        if self._combined:
            self._combine(self._to_combine(late))
            return
        self._combined, self.pending = True, list(self.blocks)
        for block in self.pending:
            block.check()
        if self.in_backward:
            self.in_backward.begin()
        try:
            self._combine(self._to_combine(late))
        finally:
            self.network.step += 1

    def _to_combine(self, late: bool) -> list[Block]:
        return [block for block in self.pending if not (late and block.is_under_way)]

    def combine_block(self, block: Block) -> None:
        """Puts the averages of one of the `pending` blocks in place."""
        if any(block is other for other in self.pending):
            self._combine([block])

    @torch.no_grad()
    def _combine(self, blocks: list[Block]) -> None:
        """Where it fails, `pending` ones stay as they are, and the step that has begun goes on."""
        try:
            for block in blocks:
                block.wait()
            for block in blocks:
                self.algorithm.combine(block)
                block.mark()
        except BaseException:
            for block in self.pending:
                block.abandon()
                self.algorithm.abandon(block)
            self.pending = []
            raise
        self.pending = [other for other in self.pending if not any(other is b for b in blocks)]

    def _before_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if self.in_backward:
            self.in_backward.forget_gradients()
        if self._state is State.GRADIENTS:
            self.algorithm.check_optimizer(optimizer)
            self._tell_before_step()

    @torch.no_grad()
    def _tell_before_step(self) -> None:
        if not self._told_before_step:
            self._told_before_step = True
            self._tell(self.algorithm.before_step)

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, all_have_stepped: bool) -> None:
        """With several optimizers, the last one ends the step; else the next forward pass does."""
        if self._state is not State.GRADIENTS:
            return
        if not self._told_before_step and self.algorithm.needs_optimizer:
            raise RuntimeError(
                f"{self.algorithm.name} acts on gradients before optimizer.step(), so an optimizer "
                "whose step() runs backward() itself (a closure, LBFGS) cannot be used with it"
            )
        self._read_learning_rates(optimizer)
        if self._told_before_step and all_have_stepped:
            self._end_step(self.algorithm.after_step)

    def _read_learning_rates(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.algorithm.needs_learning_rates:
            return
        rates = learning_rates(optimizer)
        for block in self.blocks:
            known = zip(block.tensors, block.learning_rates, strict=True)
            block.learning_rates = [rates.get(id(tensor), rate) for tensor, rate in known]

    # ---- Steps in backward

    @torch.no_grad()
    def _step_in_backward(self, block: Block, end: Callable[[Block], None]) -> None:
        try:
            self.algorithm.gradients_ready(block)
            self.algorithm.after_backward(block)
            end(block)
        except BaseException:
            self._abandon()
            raise

    def _step_block(self, block: Block) -> None:
        assert self.in_backward
        for optimizer in self.in_backward.optimizers:
            self.algorithm.check_optimizer(optimizer)
        self.algorithm.before_step(block)
        self.in_backward.step(block)
        for optimizer in self.in_backward.optimizers:
            self._read_learning_rates(optimizer)
        self.algorithm.after_step(block)

    def _skip_block(self, block: Block) -> None:
        self.algorithm.before_skip(block)
        self.algorithm.skip(block)

    def _idle_block(self, block: Block) -> None:
        self.algorithm.before_step(block)
        self.algorithm.after_step(block)

    def _end_in_backward(self, optimizers: BackwardStep, end: Callable[[Block], None]) -> None:
        """Blocks without a gradient, or with some missing, have their turn as well."""
        self._arrive(self.buffers)
        for block in optimizers.rest():
            self._step_in_backward(block, end)
        for buffers in self.buffers:
            buffers.finish()
        self._state, self._combined = State.READY, False

    # ---- Steps that go another way

    def end_step(self) -> None:
        """Takes a step that has begun to where its averages are under way."""
        self.backward_ended()
        if self._state is State.GRADIENTS:
            self._end_without_optimizer()

    def _end_without_optimizer(self) -> None:
        if self._told_before_step:  # of several optimizers not all have stepped
            self._end_step(self.algorithm.after_step)
            return
        changed = any(block.changed() for block in self.blocks)
        if self.algorithm.needs_optimizer and changed and not self._watch.seen_any:
            raise RuntimeError(
                f"{self.algorithm.name} acts around optimizer.step() and has seen none, but "
                "parameters have changed: update them with a torch.optim.Optimizer that holds them"
            )
        self._tell(self.algorithm.before_skip)  # of all blocks first, as ranks do that step
        self._end_step(self.algorithm.skip)

    @torch.no_grad()
    def _end_step(self, last_moment: Callable[[Block], None]) -> None:
        self._state, self._told_before_step, self._combined = State.READY, False, False
        self._watch.forget_steps()
        self._tell(last_moment)
        for block in self.blocks:  # one may have touched another's, if they are views of one tensor
            block.mark()

    # ---- Failures: what one block's exchange met ends the step for all of them.

    def _tell(self, moment: Callable[[Block], None]) -> None:
        """What the algorithm changes in a moment is no change of the program's."""
        try:
            for block in self.blocks:
                moment(block)
            for block in self.blocks:
                block.mark()
        except BaseException:
            self._abandon()
            raise

    def _arrive(self, exchanges: Sequence[Block] | Sequence[BufferBlock]) -> None:
        """Nothing is replaced unless everything has arrived."""
        try:
            for exchange in exchanges:
                exchange.wait()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        for exchange in [*self.buffers, *self.blocks]:
            exchange.abandon()
        for block in self.blocks:
            self.algorithm.abandon(block)
        self._state, self._told_before_step, self._combined = State.READY, False, True
        self.pending = []
        self.network.step += 1
