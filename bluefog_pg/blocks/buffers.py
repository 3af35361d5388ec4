"""Buffers, such as BatchNorm's running statistics, averaged alongside the parameters."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from bluefog_pg.blocks.flat import Flat
from bluefog_pg.blocks.network import Network


class BufferBlock:
    """Buffers of one dtype that go as one exchange, from the forward pass to the end of backward.

    The forward pass may change them meanwhile, so they stay where they are: a copy is sent, and
    what happened since is kept, b <- W b_sent + (b - b_sent).
    """

    def __init__(self, buffers: Sequence[torch.Tensor], network: Network) -> None:
        self._buffers = list(buffers)
        self._network = network
        self._sent, self._averages = (Flat(buffers, network.allocate) for _ in range(2))
        self._work: Any = None
        self._started = False

    def nbytes(self) -> int:
        """Returns the bytes of its copies of the buffers."""
        return self._sent.flat.nbytes + self._averages.flat.nbytes

    def start(self, over: str) -> None:
        """Posts the exchange and returns at once."""
        self._sent.fill(self._buffers)
        self._work = self._network.start_in_full([self._sent.flat], [self._averages.flat], over)
        self._started = True

    def wait(self) -> None:
        """Waits for the averages, if an exchange is under way. Raises what the exchange raised."""
        if self._work is not None:
            work, self._work = self._work, None
            self._network.wait(work)

    def finish(self) -> None:
        """Waits for the averages, if an exchange is under way, and puts them in place."""
        self.wait()
        if self._started:
            self._started = False
            self._averages.flat.sub_(self._sent.flat)
            torch._foreach_add_(self._buffers, self._averages.views)

    def abandon(self) -> None:
        """Waits for an exchange that is under way, and leaves the buffers as they are."""
        with contextlib.suppress(Exception):  # the first failure has been raised
            self.wait()
        self._started = False
