"""Equal models and optimizers on all ranks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from bluefog_pg.ddp.means import put_means_in_place
from bluefog_pg.torch.collectives import broadcast_nonblocking_
from bluefog_pg.torch.context import current
from bluefog_pg.torch.handles import synchronize

Parameters = Mapping[str, Any] | Iterable[tuple[str, Any]] | Iterable[torch.Tensor]


def broadcast_parameters(params: Parameters, root_rank: int) -> None:
    """Makes all tensors equal to the root's, in place.

    Args:
        params: ``model.state_dict()``, ``model.named_parameters()``, or tensors; equally many in
            the same order on all ranks. What is no tensor is left alone.
    """
    tensors = [*_tensors(params)]
    for handle in [broadcast_nonblocking_(tensor, root_rank) for tensor in tensors]:
        synchronize(handle)


def allreduce_parameters(params: Parameters) -> None:
    """Makes all tensors their means over all ranks, in place; integers are left alone."""
    tensors = [tensor for tensor in _tensors(params) if tensor.is_floating_point()]
    put_means_in_place(tensors, current().backend)


def broadcast_optimizer_state(optimizer: torch.optim.Optimizer, root_rank: int) -> None:
    """Makes the optimizer's state and options those of the root.

    Raises:
        ValueError: the optimizer is LBFGS.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("the state of torch.optim.LBFGS cannot be broadcast")
    group, is_root = current().group, current().backend.rank() == root_rank
    states = [optimizer.state_dict() if is_root else None]
    dist.broadcast_object_list(states, group=group, group_src=root_rank)
    if not is_root:
        optimizer.load_state_dict(states[0])


def _tensors(params: Parameters) -> Iterator[torch.Tensor]:
    for entry in params.items() if isinstance(params, Mapping) else params:
        value = entry[1] if isinstance(entry, tuple) else entry
        if isinstance(value, torch.Tensor):
            yield value.detach()
