"""What training with DecentralizedDataParallel has cost so far."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.buffers import BufferBlock
from bluefog_pg.blocks.network import Network


@dataclass(frozen=True)
class Statistics:
    """Of one rank and one model. All but `steps` count from the making of the model."""

    steps: int
    """Steps of training, those before a saved state was loaded included."""
    exchanges: int
    """Neighbor averages that were started: one per block, its variables together."""
    bytes_sent: int
    """Payload, counted once per neighbour that it went to."""
    wait_seconds: float
    """In which the program stood still for neighbours; the rest of the exchange was overlapped."""
    staleness: Mapping[int, int] = field(default_factory=dict)
    """Of asynchronous algorithms, by in-neighbour: how many of this rank's averages in a row, up to
    the last one, found nothing new from it; the largest of all blocks."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes by part: "x" the parameters, "y" an algorithm's variable y, "x arriving" where averages
    of x arrive, "gradients" a flat copy, "buffers" copies of BatchNorm statistics and the like,
    "window" mailboxes."""


def gather(network: Network, blocks: Sequence[Block], buffers: Iterable[BufferBlock]) -> Statistics:
    """Returns the statistics of a model that consists of these."""
    windows = [block.window.statistics() for block in blocks if block.window]
    memory: Counter[str] = Counter()
    for block in blocks:
        memory.update(block.memory())
    if copies := sum(block.nbytes() for block in buffers):
        memory["buffers"] = copies
    traffic = network.traffic
    return Statistics(
        steps=network.step,
        exchanges=traffic.exchanges,
        bytes_sent=traffic.bytes_sent,
        wait_seconds=traffic.wait_seconds + sum(each["waited"] for each in windows),
        staleness=_largest(windows),
        memory=dict(memory),
    )


def _largest(windows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    largest: dict[int, int] = {}
    for window in windows:
        for rank, edge in window["in"].items():
            largest[rank] = max(largest.get(rank, 0), edge["staleness"])
    return largest
