"""Neighbor operations: averaging and gathering over the edges of a graph.

y_i = w_ii x_i + sum over in-neighbours j of w_ij x_j   (the D-PSGD / diffusion combination step)
"""

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bluefog_pg._extension import load
from bluefog_pg.group import (
    GroupState,
    Neighborhood,
    Topology,
    TopologyLike,
    backend_of,
    compare_plans,
    member,
)

Weights = Mapping[int, float] | Sequence[int]
"""{rank: weight}, or a list of ranks for uniform weights."""


def set_topology(topology: TopologyLike, group: Any = None) -> None:
    """Sets the graph over which the group's neighbor operations average, from step 0 on.

    Collective: every rank of the group calls it with an equal topology. Operations that are under
    way keep the topology that they started with.

    Args:
        topology: an nx.DiGraph on the ranks 0..size-1 whose edge (j, i) carries the weight that i
            gives to what it receives from j (where it has none: 1 / (in-degree + 1)); a `Schedule`;
            the name of one ("one_peer_exponential"); or a function from the number of ranks to one
            (`bluefog_pg.ring`).
        group: a process group of backend "bluefog"; default: the world.

    Raises:
        TypeError, ValueError: the topology does not fit (other number of nodes, NaN weights, ...),
            or windows on the present one are open.
        MismatchError: the ranks' topologies differ; the message names the edges. All ranks raise.
    """
    backend, state = member(group)
    if windows := state.windows.on_topology():
        raise ValueError(f"the topology cannot be set while windows are open: free {windows} first")
    neighborhood = Neighborhood(topology, backend)
    state.neighborhood, state.step = neighborhood, 0


def get_topology(group: Any = None) -> Topology | None:
    """Returns the group's nx.DiGraph or `Schedule`; None before `set_topology`."""
    neighborhood = member(group)[1].neighborhood
    return None if neighborhood is None else neighborhood.topology


def neighbor_allreduce(
    tensor: torch.Tensor | Sequence[torch.Tensor],
    *,
    self_weight: float | None = None,
    src_weights: Weights | None = None,
    dst_weights: Weights | None = None,
    step: int | None = None,
    out: torch.Tensor | Sequence[torch.Tensor] | None = None,
    payload_dtype: torch.dtype | None = None,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """Returns the weighted average of this rank's tensor and its in-neighbours'.

    y_i = self_weight_i x_i + sum_j src_weights_i[j] dst_weights_j[i] x_j. Without weights the
    group's topology gives them. Every rank of the group calls this, also one without neighbours.

    Args:
        tensor: float16, bfloat16, float32 or float64 on the CPU or a GPU, any shape and strides; or
            a list of such (dtypes may differ), which goes as one exchange. Neighbours bring equal
            dtypes and shapes, on devices of one kind. Half precision is accumulated in float32.
        self_weight, src_weights: weights of this rank and of the ranks it receives from. Alone they
            reweigh the topology's in-neighbours (one that is left out counts 0). A list of ranks
            means 1 / (number of sources + 1) each, and so is self_weight by default.
        dst_weights: ranks this one sends to, each with a scale for what it sends (1 for a list).
            With src_weights this replaces the topology for one call; each send must be expected by
            its receiver (TORCH_DISTRIBUTED_DEBUG=DETAIL checks that, on all ranks and at each call;
            else only the end that has the edge raises).
        step: which step of a dynamic topology; by default a counter that advances with each call,
            on all ranks alike.
        out: where the result goes; may be `tensor` itself, must not overlap it otherwise.
        payload_dtype: a narrower dtype to send in, the same on all ranks: bfloat16 for float32
            (half the bytes), float8_e4m3fn or float8_e5m2 for float32, float16 and bfloat16. Then
            dst_weights are 1. Default: tensors go as they are.
        group: a process group of backend "bluefog"; default: the world.
        async_op: return at once with a `Work`; the result is there after `wait()`. Until then
            neither `tensor` nor `out` may be changed.

    With a payload_dtype, to which Q rounds, differences are averaged:

        y_i = (w_ii + sum_j w_ij) x_i - (sum_j w_ij) Q(x_i) + sum_j w_ij Q(x_j),

    which is x_i + sum_j w_ij (Q(x_j) - Q(x_i)) where weights sum to 1 (the "partially quantized"
    strategy of arXiv:0907.0748, (Q2-G) in arXiv:1902.00340). It is added up in this order, in
    float32. So a rank's own value keeps its precision, and doubly stochastic weights keep the mean
    over the ranks, but for the roundings of the tensor's own dtype, where w_ii x_i + sum_j w_ij
    Q(x_j) would drift. Ranks do not come closer to each other than Q tells them apart. What is
    beyond the largest value of float8 (448 of e4m3fn, 57344 of e5m2), infinities too, goes as that
    value; an infinity that goes as bfloat16 makes NaN of what its own rank gets.

    On a GPU the call enqueues and returns, as NCCL's collectives do: the current stream has the
    result, or waits for it in `wait()`, and the host does not. Ranks that disagree on dtypes or
    shapes find that out under TORCH_DISTRIBUTED_DEBUG=DETAIL alone. The first call of a group on a
    GPU is collective over the group, and outside of a CUDA graph.

    Returns:
        A tensor (list for a list) of the shape of `tensor`; with async_op, a Work whose
        `get_future().value()`, or `result()`, is the list of outputs.

    Raises:
        TypeError: an integer, bool or complex tensor (convert it first), one that cannot go as
            payload_dtype, or wrong argument types.
        ValueError: sparse or meta tensors, a device that is not served, ranks out of range, twice
            or this one, NaN weights, no topology, dst_weights other than 1 with a payload_dtype.
        MismatchError, NeighborTimeoutError, PeerLostError, AbortedError: see `bluefog_pg.errors`.
    """
    backend, state = member(group)
    if payload_dtype is not None and not isinstance(payload_dtype, torch.dtype):
        raise TypeError(f"payload_dtype must be a torch.dtype or None, got {payload_dtype!r}")
    if self_weight is None and src_weights is None and dst_weights is None:
        plan, at = state.plan(step)
    else:
        plan, at = _plan(backend, state, self_weight, src_weights, dst_weights, step)
    if state.compares_plans:
        compare_plans(backend, plan)
    outputs = None if out is None else _as_list(out)
    call = backend.neighbor_allreduce, _as_list(tensor), outputs, plan, at, async_op, payload_dtype
    work, results = state.run(backend, step is None and at >= 0, *call)
    if async_op:
        return work
    return results[0] if isinstance(tensor, torch.Tensor) else results


def neighbor_allgather(
    tensor: torch.Tensor,
    *,
    src_ranks: Sequence[int] | None = None,
    dst_ranks: Sequence[int] | None = None,
    out: torch.Tensor | None = None,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """Returns the in-neighbours' tensors concatenated along dimension 0, this rank's not included.

    The order is ascending by rank for the topology, and that of `src_ranks` where they are given.

    Args:
        tensor: any dtype, on the CPU or a GPU. Neighbours bring equal dtypes and shapes, except
            that on the CPU first dimensions may differ. A 0-d tensor counts as shape (1,).
        src_ranks, dst_ranks: whom to receive from and send to, instead of the topology's current
            step; both or none.
        out: where the result goes, contiguous, of its shape. Where the result is large, memory
            that is used again saves most of the time.
        group, async_op: as in `neighbor_allreduce`; the Work's result is a list of one tensor.

    Returns:
        A tensor of shape (sum of the sources' first dimensions, ...).

    Raises what `neighbor_allreduce` raises, and ValueError for an `out` of another shape: once the
    neighbours have said what they bring, and have got what they need.
    """
    backend, state = member(group)
    if (src_ranks is None) != (dst_ranks is None):
        raise ValueError("give both src_ranks and dst_ranks, or neither to use the topology")
    if src_ranks is None or dst_ranks is None:
        plan, at = state.plan(None)
    else:
        sources = [(_rank(rank), 1.0) for rank in src_ranks]
        destinations = [(_rank(rank), 1.0) for rank in dst_ranks]
        plan, at = load().Plan(backend.rank(), backend.size(), 0.0, sources, destinations), -1
    if state.compares_plans:
        compare_plans(backend, plan)
    call = backend.neighbor_allgather, tensor, out, plan, at, async_op
    work, results = state.run(backend, at >= 0, *call)
    return work if async_op else results[0]


def empty(
    *size: Any,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    group: Any = None,
) -> torch.Tensor:
    """Returns an uninitialised tensor that neighbours of this host can read in place.

    A `neighbor_allreduce` or `neighbor_allgather` of 128 KiB or more of it copies nothing, if its
    output is another tensor. Collective: at the group's first use, which connects the ranks, and on
    a GPU at each call, where it waits for the other ranks. Elsewhere than in shared memory, or when
    `BLUEFOG_SHM_HEAP_BYTES` are used up, it is an ordinary tensor. It stays valid after the group
    has been destroyed.

    Args:
        size: ints, or one sequence of ints, as for `torch.empty`.
        dtype: default: torch's default dtype.
        device: the CPU or a GPU.
        group: a process group of backend "bluefog"; default: the world.
    """
    shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    flat = backend_of(group).allocate_shared(shape.numel(), dtype=dtype, device=place)
    return flat.view(shape)


def bytes_sent(group: Any = None) -> int:
    """Returns how many payload bytes this rank has sent in neighbor operations of the group.

    Counted once per destination, headers left out. The tensors of a list start at multiples of 64
    bytes, and what is between them counts.
    """
    return backend_of(group).bytes_sent


def device_records(group: Any = None) -> list[dict[str, Any]]:
    """Returns the last neighbor operations on this rank's GPU, oldest first.

    For the question who hangs in what: the rank whose last sequence is behind is the one that
    others wait for. Entries have operation, sequence, edges, bytes, state ("enqueued", "completed",
    "failed" or "captured"), enqueued_ns and finished_ns (since 1970), error. Empty without
    ``BluefogOptions(own_communicator=True)``: torch's flight recorder has them then.
    """
    text = backend_of(group).device_records()
    return json.loads(text)["entries"] if text else []


def _plan(
    backend: Any,
    state: GroupState,
    self_weight: float | None,
    src_weights: Weights | None,
    dst_weights: Weights | None,
    step: int | None,
) -> tuple[Any, int]:
    """Returns the plan for a call with weights, and its round (-1: not one of the topology's)."""
    if src_weights is None:
        raise ValueError("self_weight and dst_weights need src_weights too")
    if dst_weights is not None and step is not None:
        raise ValueError("step belongs to the topology, which dst_weights replaces")
    uniform = 1 / (len(src_weights) + 1)
    sources = _edges(src_weights, uniform)
    if self_weight is None:
        if isinstance(src_weights, Mapping):
            raise ValueError("src_weights with weights need a self_weight too")
        self_weight = uniform
    if dst_weights is None:
        return _reweighed(state, float(self_weight), sources, step)
    destinations = _edges(dst_weights, 1.0)
    return load().Plan(
        backend.rank(), backend.size(), float(self_weight), sorted(sources), destinations
    ), -1


def _reweighed(
    state: GroupState, self_weight: float, given: list[tuple[int, float]], step: int | None
) -> tuple[Any, int]:
    """Returns the topology's plan with other weights; neighbours that are left out count 0."""
    plan, at = state.plan(step)
    neighbors = [rank for rank, _ in plan.sources]
    weights = dict(given)
    if len(weights) < len(given):
        raise ValueError(
            f"src_weights of rank {plan.rank} names a rank twice: {[r for r, _ in given]}"
        )
    strangers = sorted(weights.keys() - set(neighbors))
    if strangers:
        raise ValueError(
            f"src_weights of rank {plan.rank} names {strangers}, which are not among its "
            f"in-neighbours {neighbors}; to receive from other ranks give dst_weights too"
        )
    sources = [(rank, weights.get(rank, 0.0)) for rank in neighbors]
    return load().Plan(plan.rank, plan.size, self_weight, sources, plan.destinations), at


def _edges(weights: Weights, uniform: float) -> list[tuple[int, float]]:
    if isinstance(weights, Mapping):
        return [(_rank(rank), float(weight)) for rank, weight in weights.items()]
    return [(_rank(rank), uniform) for rank in weights]


def _rank(rank: Any) -> int:
    if isinstance(rank, bool):
        raise TypeError(f"a rank must be an int, got {rank!r}")
    rank = operator.index(rank)
    if rank.bit_length() > 31:  # more than C++ takes, which checks all others
        raise ValueError(f"rank {rank} is out of range: no group is that large")
    return rank


def _as_list(tensors: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
