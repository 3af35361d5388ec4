"""BlueFog's API: ``import bluefog_pg.torch as bf`` in the place of ``import bluefog.torch as bf``.

A thin layer over bluefog_pg and torch.distributed, with BlueFog's names, defaults and conventions:

    context, lifecycle, layout   init and shutdown; ranks, machines
    topologies, topology_util    who averages with whom
    collectives, neighbor, gossip  operations; `machines` has those of whole machines
    handles                      what `_nonblocking` forms return
    optimizers, helpers          training
    timeline, capabilities       the rest

docs/bluefog.md says where it does more than BlueFog, and what differs.
"""

from bluefog_pg.torch import topology_util
from bluefog_pg.torch.capabilities import (
    get_skip_negotiate_stage,
    mpi_threads_supported,
    nccl_built,
    set_skip_negotiate_stage,
    unified_mpi_window_model_supported,
)
from bluefog_pg.torch.collectives import (
    allgather,
    allgather_nonblocking,
    allreduce,
    allreduce_,
    allreduce_nonblocking,
    allreduce_nonblocking_,
    broadcast,
    broadcast_,
    broadcast_nonblocking,
    broadcast_nonblocking_,
)
from bluefog_pg.torch.context import (
    is_homogeneous,
    local_rank,
    local_size,
    machine_rank,
    machine_size,
    rank,
    size,
)
from bluefog_pg.torch.gossip import pair_gossip, pair_gossip_nonblocking
from bluefog_pg.torch.handles import barrier, poll, synchronize, wait
from bluefog_pg.torch.helpers import (
    allreduce_parameters,
    broadcast_optimizer_state,
    broadcast_parameters,
)
from bluefog_pg.torch.lifecycle import init, resume, shutdown, suspend
from bluefog_pg.torch.neighbor import (
    hierarchical_neighbor_allreduce,
    hierarchical_neighbor_allreduce_nonblocking,
    neighbor_allgather,
    neighbor_allgather_nonblocking,
    neighbor_allreduce,
    neighbor_allreduce_nonblocking,
)
from bluefog_pg.torch.optimizers import (
    CommunicationType,
    DistributedAdaptThenCombineOptimizer,
    DistributedAdaptWithCombineOptimizer,
    DistributedAllreduceOptimizer,
    DistributedGradientAllreduceOptimizer,
    DistributedHierarchicalNeighborAllreduceOptimizer,
    DistributedNeighborAllreduceOptimizer,
)
from bluefog_pg.torch.timeline import (
    timeline_context,
    timeline_end_activity,
    timeline_start_activity,
)
from bluefog_pg.torch.topologies import (
    in_neighbor_machine_ranks,
    in_neighbor_ranks,
    is_machine_topo_weighted,
    is_topo_weighted,
    load_machine_topology,
    load_topology,
    out_neighbor_machine_ranks,
    out_neighbor_ranks,
    set_machine_topology,
    set_topology,
)
from bluefog_pg.torch.topology_util import (
    ExponentialGraph,
    ExponentialTwoGraph,
    FullyConnectedGraph,
    GetDynamicOnePeerSendRecvRanks,
    GetExp2DynamicSendRecvMachineRanks,
    GetInnerOuterExpo2DynamicSendRecvRanks,
    GetInnerOuterRingDynamicSendRecvRanks,
    GetRecvWeights,
    GetSendWeights,
    InferDestinationFromSourceRanks,
    InferSourceFromDestinationRanks,
    IsRegularGraph,
    IsTopologyEquivalent,
    MeshGrid2DGraph,
    RingGraph,
    StarGraph,
    SymmetricExponentialGraph,
    isPowerOf,
)

__all__ = [
    "CommunicationType",
    "DistributedAdaptThenCombineOptimizer",
    "DistributedAdaptWithCombineOptimizer",
    "DistributedAllreduceOptimizer",
    "DistributedGradientAllreduceOptimizer",
    "DistributedHierarchicalNeighborAllreduceOptimizer",
    "DistributedNeighborAllreduceOptimizer",
    "ExponentialGraph",
    "ExponentialTwoGraph",
    "FullyConnectedGraph",
    "GetDynamicOnePeerSendRecvRanks",
    "GetExp2DynamicSendRecvMachineRanks",
    "GetInnerOuterExpo2DynamicSendRecvRanks",
    "GetInnerOuterRingDynamicSendRecvRanks",
    "GetRecvWeights",
    "GetSendWeights",
    "InferDestinationFromSourceRanks",
    "InferSourceFromDestinationRanks",
    "IsRegularGraph",
    "IsTopologyEquivalent",
    "MeshGrid2DGraph",
    "RingGraph",
    "StarGraph",
    "SymmetricExponentialGraph",
    "allgather",
    "allgather_nonblocking",
    "allreduce",
    "allreduce_",
    "allreduce_nonblocking",
    "allreduce_nonblocking_",
    "allreduce_parameters",
    "barrier",
    "broadcast",
    "broadcast_",
    "broadcast_nonblocking",
    "broadcast_nonblocking_",
    "broadcast_optimizer_state",
    "broadcast_parameters",
    "get_skip_negotiate_stage",
    "hierarchical_neighbor_allreduce",
    "hierarchical_neighbor_allreduce_nonblocking",
    "in_neighbor_machine_ranks",
    "in_neighbor_ranks",
    "init",
    "isPowerOf",
    "is_homogeneous",
    "is_machine_topo_weighted",
    "is_topo_weighted",
    "load_machine_topology",
    "load_topology",
    "local_rank",
    "local_size",
    "machine_rank",
    "machine_size",
    "mpi_threads_supported",
    "nccl_built",
    "neighbor_allgather",
    "neighbor_allgather_nonblocking",
    "neighbor_allreduce",
    "neighbor_allreduce_nonblocking",
    "out_neighbor_machine_ranks",
    "out_neighbor_ranks",
    "pair_gossip",
    "pair_gossip_nonblocking",
    "poll",
    "rank",
    "resume",
    "set_machine_topology",
    "set_skip_negotiate_stage",
    "set_topology",
    "shutdown",
    "size",
    "suspend",
    "synchronize",
    "timeline_context",
    "timeline_end_activity",
    "timeline_start_activity",
    "topology_util",
    "unified_mpi_window_model_supported",
    "wait",
]
