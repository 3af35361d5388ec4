"""The functions that BlueFog's programs call.

All take the optimizer, and the model whose parameters it holds, or a list of models;
`num_steps_per_communication`: one in so many passes communicates. Collective.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from bluefog_pg.algorithms import AsyncPushSum, PullGet, WinPut
from bluefog_pg.algorithms.asynchronous.windowed import Windowed
from bluefog_pg.torch.optimizers.base import wrap
from bluefog_pg.torch.optimizers.combining import (
    AdaptThenCombine,
    AdaptWithCombine,
    GradientAllreduce,
)
from bluefog_pg.torch.optimizers.communication import CommunicationType
from bluefog_pg.torch.optimizers.on_windows import OnWindows

Optimizer = torch.optim.Optimizer
Model = nn.Module | Sequence[nn.Module]
NEIGHBORS = CommunicationType.neighbor_allreduce


def DistributedGradientAllreduceOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Averages gradients over all ranks, as DDP and Horovod do: `GradientAllreduce`."""
    every = num_steps_per_communication
    return wrap(GradientAllreduce, optimizer, model, CommunicationType.allreduce, every)


def DistributedAdaptWithCombineOptimizer(
    optimizer: Optimizer,
    model: Model,
    communication_type: CommunicationType = NEIGHBORS,
    num_steps_per_communication: int = 1,
) -> Optimizer:
    """Averages parameters while gradients are computed, then steps (AWC): `AdaptWithCombine`."""
    every = num_steps_per_communication
    return wrap(AdaptWithCombine, optimizer, model, communication_type, every)


def DistributedAdaptThenCombineOptimizer(
    optimizer: Optimizer,
    model: Model,
    communication_type: CommunicationType = NEIGHBORS,
    num_steps_per_communication: int = 1,
) -> Optimizer:
    """Steps, then averages parameters (ATC, diffusion): `AdaptThenCombine`."""
    every = num_steps_per_communication
    return wrap(AdaptThenCombine, optimizer, model, communication_type, every)


def DistributedAllreduceOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Deprecated: DistributedAdaptWithCombineOptimizer with CommunicationType.allreduce."""
    return _deprecated(optimizer, model, CommunicationType.allreduce, num_steps_per_communication)


def DistributedNeighborAllreduceOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Deprecated: DistributedAdaptWithCombineOptimizer, with its default type."""
    return _deprecated(optimizer, model, NEIGHBORS, num_steps_per_communication)


def DistributedHierarchicalNeighborAllreduceOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Deprecated: the same with CommunicationType.hierarchical_neighbor_allreduce."""
    over = CommunicationType.hierarchical_neighbor_allreduce
    return _deprecated(optimizer, model, over, num_steps_per_communication)


def DistributedWinPutOptimizer(
    optimizer: Optimizer,
    model: Model,
    num_steps_per_communication: int = 1,
    window_prefix: str | None = None,
) -> Optimizer:
    """Puts parameters to neighbours that do not wait for them: `bluefog_pg.algorithms.WinPut`.

    The knobs `dst_weights` and `force_barrier` may be set before each step; `unregister_window()`
    ends it. window_prefix: names of its windows begin with it.
    """
    algorithm = WinPut()
    algorithm.window_prefix = window_prefix or "DistributedWinPutOptimizer"
    return _on_windows(algorithm, optimizer, model, num_steps_per_communication)


def DistributedPullGetOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Gets the parameters that neighbours have, at any time: `bluefog_pg.algorithms.PullGet`."""
    return _on_windows(PullGet(), optimizer, model, num_steps_per_communication)


def DistributedPushSumOptimizer(
    optimizer: Optimizer, model: Model, num_steps_per_communication: int = 1
) -> Optimizer:
    """Push-sum without waiting: `bluefog_pg.algorithms.AsyncPushSum`."""
    return _on_windows(AsyncPushSum(), optimizer, model, num_steps_per_communication)


def _on_windows(algorithm: Windowed, optimizer: Optimizer, model: Model, every: int) -> Optimizer:
    kind = type("OnWindows", (OnWindows,), {"_algorithm": algorithm})
    return wrap(kind, optimizer, model, NEIGHBORS, every)


def _deprecated(
    optimizer: Optimizer, model: Model, over: CommunicationType, every: int
) -> Optimizer:
    warnings.warn(
        f"use DistributedAdaptWithCombineOptimizer(optimizer, model, communication_type={over})",
        PendingDeprecationWarning,
        stacklevel=3,
    )
    return wrap(AdaptWithCombine, optimizer, model, over, every)
