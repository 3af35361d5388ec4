"""Optimizers that average with other ranks, around the user's own.

Each factory takes a torch optimizer and its model, and returns an optimizer of a subclass of the
user's class that shares its groups and state. What goes out when is then decided by attributes of
it, which may be set anew before each step:

    communication_type                        a `CommunicationType`
    self_weight, src_weights, dst_weights     as in `neighbor_allreduce`
    src_machine_weights, dst_machine_weights  as in `hierarchical_neighbor_allreduce`
    enable_topo_check                         False at first
    force_barrier                             False at first; of those on windows

With `num_steps_per_communication` J, one in J passes communicates: J passes and a step accumulate
gradients, and steps in between are local.
"""

from .communication import CommunicationType
from .factories import (
    DistributedAdaptThenCombineOptimizer,
    DistributedAdaptWithCombineOptimizer,
    DistributedAllreduceOptimizer,
    DistributedGradientAllreduceOptimizer,
    DistributedHierarchicalNeighborAllreduceOptimizer,
    DistributedNeighborAllreduceOptimizer,
    DistributedPullGetOptimizer,
    DistributedPushSumOptimizer,
    DistributedWinPutOptimizer,
)

__all__ = [
    "CommunicationType",
    "DistributedAdaptThenCombineOptimizer",
    "DistributedAdaptWithCombineOptimizer",
    "DistributedAllreduceOptimizer",
    "DistributedGradientAllreduceOptimizer",
    "DistributedHierarchicalNeighborAllreduceOptimizer",
    "DistributedNeighborAllreduceOptimizer",
    "DistributedPullGetOptimizer",
    "DistributedPushSumOptimizer",
    "DistributedWinPutOptimizer",
]
