"""One-sided windows: ranks that average without ever waiting for each other.

Each rank has a value, a tensor, and a mailbox for each of its in-neighbours. The operations are
done by the rank that calls them; the other rank need not take part, and may be slow or dead:

    put          mailbox_j[i] <- w_ij x         for out-neighbours j of this rank i
    accumulate   mailbox_j[i] += w_ij x
    get          mailbox_i[j] <- w_ij x_j       for in-neighbours j
    update       x <- w_ii x + sum_j w_ij mailbox_i[j]

Only mutexes, making and freeing a window wait for others, and between hosts a get, which asks for
what it reads. `bluefog_pg.windows` has the same as functions with BlueFog's names.

Ranks of one host write into each other's memory. Between hosts, and with transport="tcp", they
send messages, which a thread of the other rank takes and answers: what was put is there a little
later, at the latest after `flush`.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch

from bluefog_pg import topology as topologies
from bluefog_pg._new_window import agree_on_window, make_window
from bluefog_pg.group import GroupState, Neighborhood, TopologyLike, backend_of
from bluefog_pg.ops import Weights, _edges


class Window:
    """A tensor and mailboxes for it, under a name; a context manager that frees itself.

    Making one is collective: all ranks bring the same name, dtype and shape. While there are
    windows on a group's topology, that cannot be set.

    Args:
        tensor: this rank's value, which `update` changes in place: contiguous, on the CPU or a GPU,
            of dtype float16, bfloat16, float32, float64, int32 or int64 (then weights are whole
            numbers). On a GPU a call reads what the current stream has been given before, and
            returns when the GPU has done it; it cannot be captured in a CUDA graph.
        name: of the window in its group.
        zero_init: whether mailboxes hold zeros at first; by default they hold this rank's tensor.
        topology: as for `set_topology`; default: the group's. Of a `Schedule` all edges of a
            period together.
        readable: whether others can get this rank's value. If so, it is copied to where they read
            it at the end of each call, which is a copy and memory for three more.
        group: a process group of backend "bluefog"; default: the world.

    Raises:
        TypeError, ValueError: a tensor that cannot be a window's, a name in use, no topology.
        MismatchError: on all ranks, where one cannot make the window or brings another one.
        BluefogError: on all ranks, where one cannot reach a neighbour.
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        name: str,
        *,
        zero_init: bool = False,
        topology: TopologyLike | None = None,
        readable: bool = True,
        group: Any = None,
    ) -> None:
        backend = backend_of(group)
        windows = GroupState.of(backend).windows
        agree_on_window(backend, tensor, name, topology is not None, zero_init, readable)
        neighborhood = (
            GroupState.of(backend).neighborhood
            if topology is None
            else Neighborhood(topology, backend, of_averages=False)
        )
        graph = topologies.union(neighborhood.topology)
        self.name, self.rank = name, backend.rank()
        self.has_own_topology = topology is not None
        self._self_weight, sources = topologies.recv_weights(graph, self.rank)
        self._sources = dict(sorted(sources.items()))
        self.in_neighbors = list(self._sources)
        self.out_neighbors = sorted(topologies.send_ranks(graph, self.rank))
        self._windows = weakref.ref(windows)  # the group must not live as long as its windows
        edges = self.in_neighbors, self.out_neighbors
        self._window = make_window(
            backend, name, tensor, edges, zero_init=zero_init, readable=readable
        )
        self._window.carry_p(windows.with_p)
        windows.open[name] = self
        windows.made += 1

    def put(
        self,
        tensor: torch.Tensor | None = None,
        *,
        self_weight: float = 1.0,
        dst_weights: Weights | None = None,
        require_mutex: bool = False,
        async_op: bool = False,
    ) -> Any:
        """Puts dst_weights[j] * tensor into the mailbox at each out-neighbour j.

        After that the tensor is multiplied by self_weight, in place. What a mailbox held is gone.
        Between hosts one message per neighbour is under way at a time; what is put meanwhile takes
        the place of what waits, and what is accumulated is added to it.

        Args:
            tensor: default: the window's own. It may not be changed until an async put is done.
            self_weight, dst_weights: default: 1, and 1 for each out-neighbour.
            require_mutex: hold the mutexes of these mailboxes meanwhile.
            async_op: return a handle (`wait()`, `done()`) at once. A thread of the group carries
                such calls out in their order; other calls on the window wait for them.

        Raises:
            ValueError: ranks that are no out-neighbours, weights that are no numbers.
            PeerLostError: a destination has ended or freed the window; nothing was sent.
            NeighborTimeoutError: a mutex was not to be had within the group's timeout.
            AbortedError: the window has been freed, or its group destroyed.
        """
        to = _weights(dst_weights, self.out_neighbors)
        x = self.tensor if tensor is None else tensor
        return self._window.put(x, to, float(self_weight), require_mutex, async_op)

    def accumulate(
        self,
        tensor: torch.Tensor | None = None,
        *,
        self_weight: float = 1.0,
        dst_weights: Weights | None = None,
        require_mutex: bool = False,
        async_op: bool = False,
    ) -> Any:
        """Adds dst_weights[j] * tensor to the mailbox at each out-neighbour j; else as `put`.

        Exact also where the neighbour empties its mailbox at the same time: nothing is lost or
        counted twice, with or without the mutex.
        """
        to = _weights(dst_weights, self.out_neighbors)
        x = self.tensor if tensor is None else tensor
        return self._window.accumulate(x, to, float(self_weight), require_mutex, async_op)

    def get(
        self,
        *,
        src_weights: Weights | None = None,
        require_mutex: bool = False,
        async_op: bool = False,
    ) -> Any:
        """Puts src_weights[j] * (the value of in-neighbour j) into this rank's own mailbox of j.

        The value is that at the end of j's last call on the window. Arguments and errors as `put`.
        Between hosts it is asked for, and NeighborTimeoutError raised if j's process is stopped.
        """
        sources = _weights(src_weights, self.in_neighbors)
        return self._window.get(sources, require_mutex, async_op)

    def update(
        self,
        *,
        self_weight: float | None = None,
        neighbor_weights: Mapping[int, float] | None = None,
        reset: bool = False,
        clone: bool = False,
        require_mutex: bool = False,
    ) -> torch.Tensor:
        """Returns self_weight x + sum of neighbor_weights[j] * mailbox[j], and makes x that.

        Waits for nobody: it takes what the mailboxes hold.

        Args:
            self_weight, neighbor_weights: both or none; default: those of the topology.
                In-neighbours that are left out count 0.
            reset: leave zeros in the mailboxes that were used.
            clone: leave x as it is and return a new tensor. The associated p changes all the same.
            require_mutex: hold the mutexes of the own mailboxes meanwhile.
        """
        if (self_weight is None) != (neighbor_weights is None):
            raise ValueError("give both self_weight and neighbor_weights, or neither")
        if self_weight is None or neighbor_weights is None:
            self_weight, neighbor_weights = self._self_weight, self._sources
        sources = _weights(neighbor_weights, [])
        return self._window.update(float(self_weight), sources, reset, clone, require_mutex)

    def update_then_collect(self, *, require_mutex: bool = True) -> torch.Tensor:
        """Adds all mailboxes to x and empties them: push-sum's way to receive."""
        ones = dict.fromkeys(self.in_neighbors, 1.0)
        return self.update(
            self_weight=1.0, neighbor_weights=ones, reset=True, require_mutex=require_mutex
        )

    @contextmanager
    def mutex(
        self, *, for_self: bool = False, ranks: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Holds the mutexes of this rank's mailboxes at `ranks`, default: all out-neighbours.

        With for_self those of the own mailboxes, default: all of them. A mutex is between the two
        ranks of an edge; nobody gets it twice while the other waits, and that of a dead rank is
        free. Inside, do not ask for it again by require_mutex.

        Raises:
            NeighborTimeoutError: names who holds it.
        """
        if ranks is None:
            ranks = self.in_neighbors if for_self else self.out_neighbors
        self._window.lock(for_self, list(ranks))
        try:
            yield
        finally:
            self._window.unlock(for_self, list(ranks))

    def versions(self) -> dict[int, int]:
        """Returns {in-neighbour: puts and gets that no update has used yet}."""
        return dict(self._window.versions())

    def value_of(self, rank: int) -> tuple[torch.Tensor, float]:
        """Returns the value and p of a neighbour, or this rank, at the end of its last call.

        Also of one of this host that has died since. Between hosts as `get`.
        """
        return self._window.value_of(rank)

    def outstanding(self, rank: int) -> tuple[torch.Tensor, float]:
        """Returns what this rank sent to an out-neighbour that has not reset it, and its p.

        Of a dead neighbour that is what was lost with it; between hosts as far as it has said what
        it had reset, so it may be less that was lost, but not more.
        """
        return self._window.outstanding(rank)

    @property
    def tensor(self) -> torch.Tensor:
        """This rank's value: the tensor that the window was made with."""
        return self._window.tensor

    @property
    def p(self) -> float:
        """The associated p of this rank, 1 at first; see `turn_on_win_ops_with_associated_p`."""
        return self._window.p

    @p.setter
    def p(self, value: float) -> None:
        self._window.p = value

    def p_of(self, rank: int) -> float:
        """Returns the associated p in the mailbox of an in-neighbour."""
        return self._window.p_of(rank)

    def is_lost(self, rank: int) -> bool:
        """Whether a neighbour has ended, or freed the window."""
        return bool(self._window.is_lost(rank))

    @property
    def memory(self) -> str:
        """Where mailboxes are: "host memory" for tensors on the CPU.

        On a GPU "symmetric memory", of GPUs that reach each other's, if all ranks of the group are
        on one host and have such; else "own memory, with NCCL between GPUs" if the group has its
        own communicator and NCCL is 2.29 or newer; else "pinned memory" of the host, which GPUs
        read and write.
        """
        return str(self._window.memory)

    @property
    def nbytes(self) -> int:
        """The memory that this rank gives: 4 tensors per in-neighbour, 3 more if it is readable.

        Per neighbour of another host 1 more to receive and up to 3 more to send.
        """
        return int(self._window.nbytes)

    def statistics(self) -> dict[str, Any]:
        """Returns counts per edge, and the seconds that this rank has waited for mutexes.

        {"in": {rank: {"records": values that have come and were seen, "gets": ..., "staleness":
        updates in a row, up to the last one, that found nothing new}}, "out": {rank: {"puts": ...,
        "accumulates": ...}}, "waited": ...}
        """
        return self._window.statistics()

    def carry_p(self, on: bool) -> None:
        """Whether a p goes along with what this rank sends, and changes in `update`."""
        self._window.carry_p(on)

    def flush(self) -> None:
        """Waits for this rank's async calls, and until all that it has sent is in the mailboxes.

        Of ranks of one host that is so when a call is over.

        Raises:
            NeighborTimeoutError: names neighbours where it is not, after the group's timeout.
            PeerLostError: names one that was lost before; at all others it is there.
        """
        self._window.flush()

    def free(self) -> None:
        """Frees the window. Collective among neighbours: waits for those that live to free it too.

        Raises:
            NeighborTimeoutError: names those that did not come; the window is freed all the same.
            AbortedError: it was freed before.
        """
        self._forget()
        self._window.free()

    def close(self) -> None:
        """Frees the window without a word to the others, whose puts to this rank then fail."""
        self._forget()
        self._window.close()

    def _forget(self) -> None:
        windows = self._windows()
        if windows is not None and windows.open.get(self.name) is self:
            del windows.open[self.name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.close()  # who knows whether the others come
        elif not self._window.closed:
            self.free()


class GroupWindows:
    """The open windows of a group, in the order in which they were made."""

    def __init__(self) -> None:
        self.open: dict[str, Window] = {}
        self.made = 0  # so far; the same on all ranks
        self.with_p = False

    def on_topology(self) -> list[str]:
        """Returns the names of those on the group's topology."""
        return [name for name, window in self.open.items() if not window.has_own_topology]


def _weights(given: Weights | None, neighbors: Sequence[int]) -> list[tuple[int, float]]:
    return _edges(neighbors if given is None else given, 1.0)
