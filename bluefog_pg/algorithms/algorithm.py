"""What an algorithm is: what it does with the parameters at six moments of a training step.

    combine -> before_forward -> forward, backward -> gradients_ready, after_backward -> before_step
        ^                                                                                     |
        +-------------------------------- after_step <- optimizer.step() <-------------------+

Each moment is told once per step and for every `Block` of parameters x, with gradients disabled.
Usually that is one moment for all blocks, then the next one; with `step_in_backward` a block, the
last one first, goes through its last moments before the next block does; and `combine` may come
late, see `lazy`.

An exchange is started in one moment and finished in the same or a later one; what lies between them
is what it overlaps with. At most one of a variable is under way at a time, and all ranks start the
same ones in the same order, because they go through the same moments.

`optimizer.step()` is the user's own optimizer, whatever it is: where an equation says ``lr g``, it
takes what the optimizer subtracts. Where theory wants plain SGD, the algorithm's docstring says so.
"""

from typing import Any, ClassVar

import torch

from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology


class Algorithm:
    """One decentralized method. Subclasses override the moments at which they do something.

    Its first docstring line names it; then come its equation, where W is the step's mixing matrix,
    g(x) the gradient and ' marks the next iterate, and its source.
    """

    name: ClassVar[str]
    """Its name in `algorithm=`; set by `register`."""
    safety: ClassVar[str | None] = None
    """The row of `bluefog_pg.topology.require_safe` that W must pass; default: its name."""
    exchanged: ClassVar[tuple[str, ...]] = ()
    """Its variables that are sent, as large as x each, with memory for what arrives."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Its variables that stay on the rank, as large as x each."""
    memory: ClassVar[int | str] = 1
    """What it takes beside parameters, gradients and optimizer: how many times the bytes of x."""
    messages: ClassVar[float] = 1
    """How many times the bytes of x a rank sends to each out-neighbour, in steps that average."""
    allreduces: ClassVar[float] = 0
    """How many times as many are averaged over all ranks by allreduce, in steps that do that."""
    needs_optimizer: ClassVar[bool] = False
    """Whether it fails without a torch optimizer, because it acts around its step()."""
    needs_learning_rates: ClassVar[bool] = False
    """Whether it reads `Block.learning_rates`."""

    keeps_dtype: ClassVar[str | None] = None
    """Why what it exchanges cannot go in a narrower dtype (`payload_dtype`); None: it can."""

    lazy: ClassVar[bool] = False
    """Whether `combine` may come as late as the first use of a block, after `before_forward`.

    True where `combine` starts no exchange and does not look at the step, and `before_forward`
    leaves alone the blocks that have an exchange under way.
    """

    asynchronous: ClassVar[bool] = False
    """Whether it waits for no other rank in a step, so that ranks may make different numbers of
    them: nothing else of a step may wait then either."""

    default_topology: ClassVar[str] = "one_peer_exponential"
    """What is averaged over where neither the user nor the group has a topology."""
    buffers_over: ClassVar[str] = "W"
    """The graph over which buffers are averaged: one whose weights sum to 1 on every rank."""

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        """Returns the graphs to average over, by name; "W" is the one that is checked."""
        return {"W": topology}

    def communicates(self, step: int) -> bool:
        """Whether this step averages anything; buffers are averaged in such steps only."""
        return True

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Before each step of an optimizer of the user's that holds some of x.

        Raises:
            ValueError: it cannot work with this one, as it is set now.
        """

    def round(self, step: int) -> int:
        """Which round of a schedule a step averages over."""
        return step

    def begin(self, block: Block) -> None:
        """When a block is made: its variables exist and are zero."""

    def combine(self, block: Block) -> None:
        """Before x is used again, if `after_step` has started an exchange: finishes it."""

    def before_forward(self, block: Block) -> None:
        """At the start of a forward pass that is followed by backward() and a step."""

    def gradients_ready(self, block: Block) -> None:
        """When its gradients are there, at the end of backward(): to start an exchange of them.

        All blocks are told before anything is waited for. Gradients may still be scaled
        (GradScaler), and are unclipped.
        """

    def after_backward(self, block: Block) -> None:
        """At the end of backward(), when everything that was under way has arrived."""

    def before_step(self, block: Block) -> None:
        """Right before optimizer.step(), with the gradients that it will see."""

    def after_step(self, block: Block) -> None:
        """Right after optimizer.step(), with the parameters that it has left."""

    def before_skip(self, block: Block) -> None:
        """In the place of `before_step` where no optimizer steps, as when a GradScaler met inf.

        Other ranks may step, so this starts and finishes the exchanges that `before_step` does.
        """

    def skip(self, block: Block) -> None:
        """In the place of `after_step` then: starts the same exchanges."""
        self.after_step(block)

    def abandon(self, block: Block) -> None:
        """In the place of the rest of a step in which an exchange failed; nothing is under way.

        Where x is something else inside of a step than between steps (`Block.converted`), this
        makes it what it was.
        """

    def settling(self, block: Block) -> None:
        """Of asynchronous ones, before all ranks meet: waits until what was sent is there."""

    def settled(self, block: Block) -> None:
        """Of asynchronous ones, where all ranks have come to a point at which nobody sends.

        Takes in what has been sent to this rank.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what it keeps beside variables of blocks, for saving."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` returned."""
