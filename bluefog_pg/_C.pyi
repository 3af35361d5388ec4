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

    Args:
        transport: how neighbours are reached on the CPU: "auto" (shared memory on one host, TCP
            elsewhere), "shm" (an error where some rank is on another host), "tcp", or "gloo" (TCP
            by torch's Gloo backend). The same on all ranks.
        host_collectives: whether standard collectives on the CPU go through shared memory as well
            where all ranks of the group are on one host; otherwise, and with transport="tcp" or
            "gloo", they go to Gloo. The same on all ranks. The environment variable
            BLUEFOG_HOST_COLLECTIVES=0 turns it off too.
        own_communicator: whether neighbor operations on GPUs have an NCCL communicator of their
            own, with deadlines and records, instead of ProcessGroupNCCL's. The same on all ranks.
            Needs a build with nvcc and nccl.h.
        symmetric_memory: whether memory of `bluefog_pg.empty` and of DecentralizedDataParallel on
            GPUs is mapped into all ranks of the group, where these are on one host and their GPUs
            reach each other, so that neighbours read it in place. The same on all ranks.
        communication_streams: on how many streams async neighbor operations on GPUs end, in turn,
            so that independent ones may overlap.
        high_priority: whether these streams, and that of own_communicator, go before others.
        max_neighbors: the most neighbours, in and out, that any rank has in a neighbor operation on
            GPUs, for NCCL (from 2.30) to size own_communicator by; more are then a ValueError.
            0 for any number. The same on all ranks.
        cuda: ProcessGroupNCCL.Options for the CUDA side of the group.
    """

    def __init__(
        self,
        *,
        transport: str = "auto",
        host_collectives: bool = True,
        own_communicator: bool = False,
        symmetric_memory: bool = True,
        communication_streams: int = 1,
        high_priority: bool = True,
        max_neighbors: int = 0,
        cuda: Backend.Options | None = None,
    ) -> None: ...
    @property
    def transport(self) -> str: ...
    @property
    def host_collectives(self) -> bool: ...
    @property
    def own_communicator(self) -> bool: ...
    @property
    def symmetric_memory(self) -> bool: ...
    @property
    def communication_streams(self) -> int: ...
    @property
    def high_priority(self) -> bool: ...
    @property
    def max_neighbors(self) -> int: ...
    @property
    def cuda(self) -> Backend.Options | None: ...

class CudaLibrary:
    """NCCL as torch has loaded it, from `bluefog_pg._C_cuda.load_nccl`; opaque."""

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
        load_nccl: Callable[[], CudaLibrary],
        make_edges: Callable[[], Backend],
        make_child: Callable[[Store, int, int, BluefogOptions], Backend],
        pin: Callable[[int, int], None],
        unpin: Callable[[int], None],
    ) -> None: ...
    def neighbor_allreduce(
        self,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor] | None,
        plan: Plan,
        round: int,
        async_op: bool,
        payload_dtype: torch.dtype | None = None,
    ) -> tuple[Work | None, list[torch.Tensor]]: ...
    @staticmethod
    def is_narrower(payload: torch.dtype, own: torch.dtype) -> bool: ...
    def neighbor_allgather(
        self,
        input: torch.Tensor,
        out: torch.Tensor | None,
        plan: Plan,
        round: int,
        async_op: bool,
    ) -> tuple[Work | None, list[torch.Tensor]]: ...
    def make_window(
        self,
        name: str,
        tensor: torch.Tensor,
        in_neighbors: Sequence[int],
        out_neighbors: Sequence[int],
        *,
        zero_init: bool,
        readable: bool,
    ) -> TensorWindow: ...
    def allocate_shared(
        self, size: int, *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor: ...
    def transport_of(self, peer: int) -> str: ...
    def device_records(self) -> str: ...
    @property
    def symmetric_memory_refusal(self) -> str: ...
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

class WindowHandle:
    """A call on a window that its caller has not waited for."""

    def wait(self) -> None: ...
    def done(self) -> bool: ...

class TensorWindow:
    """One-sided memory with a tensor as this rank's value; made by `BluefogBackend.make_window`.

    bluefog_pg/_window.py says what the methods do.
    """

    @staticmethod
    def check(tensor: torch.Tensor, window: str) -> None: ...
    def put(
        self,
        tensor: torch.Tensor,
        destinations: Sequence[tuple[int, float]],
        self_weight: float,
        require_mutex: bool,
        async_op: bool,
    ) -> WindowHandle | None: ...
    def accumulate(
        self,
        tensor: torch.Tensor,
        destinations: Sequence[tuple[int, float]],
        self_weight: float,
        require_mutex: bool,
        async_op: bool,
    ) -> WindowHandle | None: ...
    def get(
        self, sources: Sequence[tuple[int, float]], require_mutex: bool, async_op: bool
    ) -> WindowHandle | None: ...
    def update(
        self,
        self_weight: float,
        sources: Sequence[tuple[int, float]],
        reset: bool,
        clone: bool,
        require_mutex: bool,
    ) -> torch.Tensor: ...
    def value_of(self, rank: int) -> tuple[torch.Tensor, float]: ...
    def outstanding(self, rank: int) -> tuple[torch.Tensor, float]: ...
    def versions(self) -> list[tuple[int, int]]: ...
    def lock(self, as_owner: bool, ranks: Sequence[int]) -> None: ...
    def unlock(self, as_owner: bool, ranks: Sequence[int]) -> None: ...
    def flush(self) -> None: ...
    def free(self) -> None: ...
    def close(self) -> None: ...
    def p_of(self, rank: int) -> float: ...
    def carry_p(self, on: bool) -> None: ...
    def statistics(self) -> dict[str, Any]: ...
    p: float
    def is_lost(self, rank: int) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def memory(self) -> str: ...
    @property
    def tensor(self) -> torch.Tensor: ...
