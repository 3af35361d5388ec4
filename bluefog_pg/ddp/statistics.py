"""What training with DecentralizedDataParallel has cost so far."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes by part: "x" the parameters, "y" an algorithm's variable y, "x arriving" where averages
    of x arrive, "gradients" a flat copy, "buffers" copies of BatchNorm statistics and the like."""


def gather(network: Network, blocks: Iterable[Block], buffers: Iterable[BufferBlock]) -> Statistics:
    """Returns the statistics of a model that consists of these."""
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
        wait_seconds=traffic.wait_seconds,
        memory=dict(memory),
    )
