"""BlueFog 0.3's public names with their parameters, and which of them are still missing here."""

FUNCTIONS = """
init(topology_fn=None, is_weighted=False)
shutdown()
size()
rank()
local_size()
local_rank()
machine_size()
machine_rank()
is_homogeneous()
set_topology(topology=None, is_weighted=False)
load_topology()
set_machine_topology(topology, is_weighted=False)
load_machine_topology()
in_neighbor_ranks()
out_neighbor_ranks()
in_neighbor_machine_ranks()
out_neighbor_machine_ranks()
is_topo_weighted()
is_machine_topo_weighted()
mpi_threads_supported()
unified_mpi_window_model_supported()
nccl_built()
set_skip_negotiate_stage(value)
get_skip_negotiate_stage()
suspend()
resume()
timeline_start_activity(tensor_name, activity_name)
timeline_end_activity(tensor_name)
timeline_context(tensor_name, activity_name)
barrier()
poll(handle)
synchronize(handle)
wait(handle)
allreduce(tensor, average=True, is_hierarchical_local=False, name=None)
allreduce_nonblocking(tensor, average=True, is_hierarchical_local=False, name=None)
allreduce_(tensor, average=True, is_hierarchical_local=False, name=None)
allreduce_nonblocking_(tensor, average=True, is_hierarchical_local=False, name=None)
broadcast(tensor, root_rank, name=None)
broadcast_nonblocking(tensor, root_rank, name=None)
broadcast_(tensor, root_rank, name=None)
broadcast_nonblocking_(tensor, root_rank, name=None)
allgather(tensor, name=None)
allgather_nonblocking(tensor, name=None)
neighbor_allgather(tensor, *, src_ranks=None, dst_ranks=None, enable_topo_check=True, name=None)
neighbor_allgather_nonblocking(tensor, *, src_ranks=None, dst_ranks=None, enable_topo_check=True, name=None)
neighbor_allreduce(tensor, *, self_weight=None, src_weights=None, dst_weights=None, enable_topo_check=True, name=None)
neighbor_allreduce_nonblocking(tensor, *, self_weight=None, src_weights=None, dst_weights=None, enable_topo_check=True, name=None)
hierarchical_neighbor_allreduce(tensor, *, self_weight=None, src_machine_weights=None, dst_machine_weights=None, enable_topo_check=False, name=None)
hierarchical_neighbor_allreduce_nonblocking(tensor, *, self_weight=None, src_machine_weights=None, dst_machine_weights=None, enable_topo_check=False, name=None)
pair_gossip(tensor, target_rank, self_weight=None, pair_weight=None, name=None)
pair_gossip_nonblocking(tensor, target_rank, self_weight=None, pair_weight=None, name=None)
broadcast_parameters(params, root_rank)
allreduce_parameters(params)
broadcast_optimizer_state(optimizer, root_rank)
DistributedGradientAllreduceOptimizer(optimizer, model, num_steps_per_communication=1)
DistributedAdaptWithCombineOptimizer(optimizer, model, communication_type=CommunicationType.neighbor_allreduce, num_steps_per_communication=1)
DistributedAdaptThenCombineOptimizer(optimizer, model, communication_type=CommunicationType.neighbor_allreduce, num_steps_per_communication=1)
DistributedAllreduceOptimizer(optimizer, model, num_steps_per_communication=1)
DistributedNeighborAllreduceOptimizer(optimizer, model, num_steps_per_communication=1)
DistributedHierarchicalNeighborAllreduceOptimizer(optimizer, model, num_steps_per_communication=1)
DistributedWinPutOptimizer(optimizer, model, num_steps_per_communication=1, window_prefix=None)
DistributedPullGetOptimizer(optimizer, model, num_steps_per_communication=1)
DistributedPushSumOptimizer(optimizer, model, num_steps_per_communication=1)
win_create(tensor, name, zero_init=False)
win_free(name=None)
win_put(tensor, name, self_weight=None, dst_weights=None, require_mutex=False)
win_put_nonblocking(tensor, name, self_weight=None, dst_weights=None, require_mutex=False)
win_accumulate(tensor, name, self_weight=None, dst_weights=None, require_mutex=False)
win_accumulate_nonblocking(tensor, name, self_weight=None, dst_weights=None, require_mutex=False)
win_get(name, src_weights=None, require_mutex=False)
win_get_nonblocking(name, src_weights=None, require_mutex=False)
win_update(name, self_weight=None, neighbor_weights=None, reset=False, clone=False, require_mutex=False)
win_update_then_collect(name, require_mutex=True)
win_poll(handle)
win_wait(handle)
win_mutex(name, for_self=False, ranks=None)
win_lock(name)
get_win_version(name)
get_current_created_window_names()
win_associated_p(name)
turn_on_win_ops_with_associated_p()
turn_off_win_ops_with_associated_p()
"""  # noqa: E501

TOPOLOGY_UTIL = """
ExponentialTwoGraph(size)
ExponentialGraph(size, base=2)
SymmetricExponentialGraph(size, base=4)
MeshGrid2DGraph(size, shape=None)
StarGraph(size, center_rank=0)
RingGraph(size, connect_style=0)
FullyConnectedGraph(size)
IsTopologyEquivalent(topo1, topo2)
IsRegularGraph(topo)
GetRecvWeights(topo, rank)
GetSendWeights(topo, rank)
isPowerOf(x, base)
GetDynamicOnePeerSendRecvRanks(topo, self_rank)
GetExp2DynamicSendRecvMachineRanks(world_size, local_size, self_rank, local_rank)
GetInnerOuterRingDynamicSendRecvRanks(world_size, local_size, self_rank)
GetInnerOuterExpo2DynamicSendRecvRanks(world_size, local_size, self_rank)
InferSourceFromDestinationRanks(dst_ranks, construct_adjacency_matrix=False)
InferDestinationFromSourceRanks(src_ranks, construct_adjacency_matrix=False)
"""

COMMUNICATION_TYPES = {
    "neighbor_allreduce",
    "hierarchical_neighbor_allreduce",
    "allreduce",
    "empty",
}

NOT_YET = {
    "DistributedPullGetOptimizer",
    "DistributedPushSumOptimizer",
    "DistributedWinPutOptimizer",
    "get_current_created_window_names",
    "get_win_version",
    "turn_off_win_ops_with_associated_p",
    "turn_on_win_ops_with_associated_p",
    "win_accumulate",
    "win_accumulate_nonblocking",
    "win_associated_p",
    "win_create",
    "win_free",
    "win_get",
    "win_get_nonblocking",
    "win_lock",
    "win_mutex",
    "win_poll",
    "win_put",
    "win_put_nonblocking",
    "win_update",
    "win_update_then_collect",
    "win_wait",
}
"""Windows, and the optimizers on them."""


def by_name(text):
    """Returns {name: signature as text}."""
    return {line.partition("(")[0]: line for line in text.split("\n") if line}
