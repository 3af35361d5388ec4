"""Which ranks share a machine."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluefog_pg.group import all_gather_bytes


@dataclass(frozen=True)
class Layout:
    """The machines as one rank sees them."""

    machines: tuple[tuple[int, ...], ...]
    """The ranks of each machine, ascending; machines in the order of their lowest rank."""
    rank: int

    @property
    def machine(self) -> int:
        return next(m for m, ranks in enumerate(self.machines) if self.rank in ranks)

    @property
    def local_ranks(self) -> tuple[int, ...]:
        """Returns the ranks of this machine."""
        return self.machines[self.machine]

    @property
    def local_rank(self) -> int:
        return self.local_ranks.index(self.rank)

    @property
    def peers(self) -> tuple[int, ...]:
        """Returns the ranks of this local rank, one per machine. Of homogeneous machines only."""
        return tuple(ranks[self.local_rank] for ranks in self.machines)

    def is_homogeneous(self) -> bool:
        """Whether each machine m has the ranks m L .. (m + 1) L - 1, L = the local size."""
        size = len(self.machines[0])
        return all(
            ranks == tuple(range(m * size, (m + 1) * size)) for m, ranks in enumerate(self.machines)
        )


def find(backend: Any, local_size: int | None) -> Layout:
    """Returns the layout of a group's ranks. Collective.

    Args:
        backend: the group's BluefogBackend.
        local_size: take each `local_size` ranks in a row for a machine; None: as they run.

    Raises:
        ValueError: the ranks do not fill machines of `local_size`.
    """
    rank, size = backend.rank(), backend.size()
    if local_size is not None and (local_size < 1 or size % local_size):
        raise ValueError(
            f"{size} ranks do not fill machines of {local_size}; change local_size of bf.init() or "
            "BLUEFOG_NODES_PER_MACHINE"
        )
    own = _machine_name() if local_size is None else str(rank // local_size)
    machines: dict[bytes, list[int]] = {}
    for other, name in enumerate(all_gather_bytes(backend, own.encode())):
        machines.setdefault(name, []).append(other)
    return Layout(tuple(map(tuple, machines.values())), rank)


def _machine_name() -> str:
    """The running kernel, and torchrun's number of the node where several share one kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.environ.get('GROUP_RANK', '')}"
