"""What algorithms over windows have in common."""

import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, ClassVar

from bluefog_pg._window import Window
from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.blocks.block import Block
from bluefog_pg.errors import PeerLostError
from bluefog_pg.group import GroupState, Topology
from bluefog_pg.topology import recv_weights, union


class Windowed(Algorithm):
    """Each block has a window on x, and its ranks go their own pace.

    Nothing is sent or received but by the rank that calls, and nothing is waited for: a rank that
    is slow, stopped or dead costs the others nothing. (Who reads the value of a rank of another
    host, as some algorithms do, asks for it: a stopped one raises NeighborTimeoutError.) A
    neighbour that is lost is left out from then on, with a warning. Of a schedule the edges of all
    of its steps are used at any time.

    BatchNorm's buffers stay each rank's own. `settle`, `averaged`, `finalize`, saving, and changes
    of which parameters are trained are points at which all ranks meet.
    """

    asynchronous = True
    keeps_dtype = "its values go through windows"
    memory = "4 d"
    default_topology = "exponential"
    readable: ClassVar[bool] = False
    """Whether neighbours read x themselves."""
    mailboxes_are_part_of_x: ClassVar[bool] = False
    """Whether what is in them has left another rank's x, so that it must not get lost."""

    window_prefix = "DecentralizedDataParallel"
    """Names of windows begin with it."""

    def __init__(self) -> None:
        self._lost: set[int] = set()

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        return {"W": union(topology)}

    def begin(self, block: Block) -> None:
        block.window = window = Window(
            block["x"],
            f"{self.window_prefix}.{GroupState.of(block.network.backend).windows.made}",
            zero_init=self.mailboxes_are_part_of_x,
            topology=block.network.topology(),
            readable=self.readable,
            group=block.network.backend,
        )
        weakref.finalize(block, window.close)

    def settling(self, block: Block) -> None:
        with suppress(PeerLostError):  # of that nobody waits for the end
            block.window.flush()

    def settled(self, block: Block) -> None:
        if self.mailboxes_are_part_of_x:
            self._collect(block)

    # ---- For subclasses

    def _destinations(self, block: Block) -> list[int]:
        """Out-neighbours that are there."""
        return [rank for rank in block.window.out_neighbors if rank not in self._lost]

    def _reach(self, call: Callable[..., Any], rank: int, *args: Any) -> Any:
        """Calls `call(rank, *args)`; returns None, and leaves the rank out for good, if it is lost.

        Otherwise what it returns, or True where that is None.
        """
        try:
            result = call(rank, *args)
        except PeerLostError as error:
            self._lost.add(rank)
            warnings.warn(f"training goes on without rank {rank}: {error}", stacklevel=2)
            return None
        return True if result is None else result

    def _sent(self, block: Block, copies: int) -> None:
        block.network.traffic.exchanges += 1
        block.network.traffic.bytes_sent += copies * block["x"].nbytes

    def _average(self, block: Block) -> None:
        """x <- w_ii x + sum of w_ij mailbox[j]; the weight of lost neighbours goes to x."""
        own, sources = recv_weights(block.network.topology(), block.network.rank)
        lost = {rank: weight for rank, weight in sources.items() if self._is_lost(block, rank)}
        block.window.update(
            self_weight=own + sum(lost.values()),
            neighbor_weights={rank: w for rank, w in sources.items() if rank not in lost},
        )
        block.touch()

    def _is_lost(self, block: Block, rank: int) -> bool:
        if rank not in self._lost and block.window.is_lost(rank):
            self._lost.add(rank)
            warnings.warn(f"training goes on without rank {rank}, which has ended", stacklevel=2)
        return rank in self._lost

    def _collect(self, block: Block) -> None:
        """Adds what the mailboxes hold to x, and empties them."""
        block.window.update_then_collect(require_mutex=False)
        block.touch()

    def _partner(self, block: Block) -> int | None:
        """One of the out-neighbours that have taken in all that they were sent, at random.

        Averaging again and again with the value that a stopped rank has shown would not average
        the two but make them change places.
        """
        there = [j for j in self._destinations(block) if not self._is_lost(block, j)]
        ranks = [j for j in there if not block.window.outstanding(j)[0].any()]
        seed = f"{block.network.rank} {block.network.step}"
        return Random(seed).choice(ranks) if ranks else None
