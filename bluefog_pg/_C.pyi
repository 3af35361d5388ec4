"""The C++ extension (csrc/backend/bind.cc). Load it with `bluefog_pg._extension.load()`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._distributed_c10d import Backend, Store, Work

class Plan:
    """What one rank does in one neighbor operation. Immutable.

    Raises ValueError for ranks out of range, twice, or `rank` itself, and for weights that are NaN
    or infinite.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        self_weight: float,
        sources: Sequence[tuple[int, float]],
        destinations: Sequence[tuple[int, float]],
    ) -> None: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def self_weight(self) -> float: ...
    @property
    def sources(self) -> list[tuple[int, float]]: ...
    @property
    def destinations(self) -> list[tuple[int, float]]: ...
    def __eq__(self, other: object) -> bool: ...

class BluefogOptions(Backend.Options):
    """Options of one group: ``init_process_group("bluefog", pg_options=BluefogOptions(...))``.

    transport: how neighbours are reached on the CPU: "auto" (shared memory on one host, Gloo
    elsewhere), "shm" (an error where some rank is on another host) or "gloo".
    host_collectives: whether standard collectives on the CPU go through shared memory as well where
    all ranks of the group are on one host; otherwise, and with transport="gloo", they go to Gloo.
    The same on all ranks. The environment variable BLUEFOG_HOST_COLLECTIVES=0 turns it off too.
    cuda: ProcessGroupNCCL.Options for the CUDA side of the group.
    """

    def __init__(
        self,
        *,
        transport: str = "auto",
        host_collectives: bool = True,
        cuda: Backend.Options | None = None,
    ) -> None: ...
    @property
    def transport(self) -> str: ...
    @property
    def host_collectives(self) -> bool: ...
    @property
    def cuda(self) -> Backend.Options | None: ...

class BluefogBackend(Backend):
    """One process group's backend; made by `bluefog_pg._create`.

    Making one is collective. sequence: neighbor operations started so far; bytes_sent: their bytes;
    host_collectives: standard collectives that took the way through shared memory.
    """

    _state: Any
    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        options: BluefogOptions,
        cpu: Backend,
        make_cuda: Callable[[], Backend],
        make_edges: Callable[[], Backend],
        make_child: Callable[[Store, int, int, BluefogOptions], Backend],
    ) -> None: ...
    def neighbor_allreduce(
        self,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
        plan: Plan,
        round: int,
        async_op: bool,
    ) -> tuple[Work | None, list[torch.Tensor]]: ...
    def neighbor_allgather(
        self, input: torch.Tensor, plan: Plan, round: int, async_op: bool
    ) -> tuple[Work | None, list[torch.Tensor]]: ...
    def transport_of(self, peer: int) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def host_collectives(self) -> int: ...
    @property
    def options(self) -> BluefogOptions: ...
    def comm_split_count(self) -> int: ...
    def perform_nocolor_split(self, device: torch.device) -> None: ...
