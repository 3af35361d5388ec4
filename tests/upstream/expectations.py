"""What compare.py cannot know from the run on the reference, which is torch's own gloo or nccl."""

from dataclasses import dataclass

from packaging.specifiers import SpecifierSet


@dataclass(frozen=True)
class Expectations:
    """Beside one reference. A run in which that passes too little is no measure of bluefog."""

    known: dict[str, dict[str, str]]  # torch versions -> test -> why bluefog fails
    quick: dict[str, str]  # family -> tests of the quick subset, all of which the reference passes
    least_passed: int  # by the reference, of the whole suite

    def known_failures(self, torch_version):
        """test -> reason, for this version of torch."""
        known = {}
        for versions, tests in self.known.items():
            if SpecifierSet(versions).contains(torch_version, prereleases=True):
                known |= tests
        return known

    def quick_tests(self):
        return [test for names in self.quick.values() for test in names.split()]


# Known is what no third-party backend can pass. Quick has at least one of each family that runs on
# gloo, and all that is known, at about half a second each.
GLOO = Expectations(
    known={
        ">=2.11": {
            "test_ddp_logging_data_cpu": "torch's C++ getBackendName() has 'custom' for any plugin",
        },
        ">=2.11,<2.14": {
            "test_monitored_barrier_gloo": "torch's Python refuses every name but 'gloo'",
            "test_monitored_barrier_gloo_subgroup": "torch's Python refuses every name but 'gloo'",
        },
    },
    quick={
        "init": "test_get_backend test_get_rank test_Backend_enum_class",
        "broadcast": "test_broadcast test_broadcast_full_group",
        "all_reduce": """test_all_reduce_sum test_all_reduce_sum_async test_all_reduce_sum_complex
            test_all_reduce_full_group_max test_all_reduce_coalesced_sum
            test_sparse_all_reduce_sum""",
        "reduce": "test_reduce_sum test_reduce_full_group_product test_reduce_sum_twice",
        "all_gather": """test_all_gather test_all_gather_complex test_all_gather_coalesced_simple
            test_all_gather_coalesced_with_empty test_all_gather_object_default_pg""",
        "gather and scatter": """test_gather test_gather_checks test_scatter test_scatter_complex
            test_scatter_object_list""",
        "point to point": """test_send_recv test_send_recv_with_tag test_send_recv_any_source
            test_send_recv_autograd_profiler test_isend test_irecv test_batch_isend_irecv_gloo
            test_batch_isend_irecv_gloo_tags""",
        "subgroups": """test_get_rank_size_group test_destroy_group test_destroy_full_group
            test_all_gather_object_subgroup test_monitored_barrier_gloo_subgroup""",
        "barrier": """test_barrier test_barrier_timeout_global test_monitored_barrier_gloo
            test_monitored_barrier_gloo_rank_0_timeout""",
        "DDP": """test_DistributedDataParallelCPU test_DistributedDataParallel_requires_grad
            test_accumulate_gradients_no_sync test_accumulate_gradients_no_sync_allreduce_hook
            test_grads_same_across_ranks_with_no_sync test_static_graph_api_cpu test_get_future
            test_ddp_create_graph test_ddp_logging_data_cpu""",
    },
    least_passed=85,  # 91 on torch 2.11 and 2.15
)

# What is known takes 10 s, and quick does without it. What fails on nccl itself: SyncBatchNorm,
# float16 under autocast and torch.profiler on emulated GPUs, and in torch 2.15 what tests that come
# with it expect of the nccl of before (a barrier on the current device; objects from another one).
NCCL = Expectations(
    known={
        ">=2.11": {
            "test_batch_isend_irecv_self_nccl": "nccl connects all ranks in init_process_group or "
            "barrier(), bluefog at the first CUDA tensor, and here only rank 0 has one",
        },
    },
    quick={
        "init": "test_get_backend test_get_rank test_Backend_enum_class",
        "broadcast": "test_broadcast_cuda test_nccl_backend_bool_broadcast",
        "all_reduce": """test_all_reduce_sum_cuda test_all_reduce_sum_cuda_async
            test_all_reduce_sum_cuda_complex test_nccl_high_priority_stream""",
        "reduce": "test_reduce_sum_cuda test_reduce_sum_cuda_twice",
        "reduce_scatter": "test_reduce_scatter_tensor_cuda",
        "all_gather": """test_all_gather_cuda test_all_gather_into_cat_tensor_cuda
            test_all_gather_into_stack_tensor_cuda""",
        "all_to_all": "test_all_to_all_cuda test_all_to_all_single_unequal_split_cuda_complex",
        "gather and scatter": "test_gather_cuda test_scatter_cuda",
        "point to point": """test_send_recv_nccl test_batch_isend_irecv_nccl
            test_batch_isend_irecv_ring_exchange_nccl""",
        "coalescing": "test_coalescing_manager test_coalescing_manager_async",
        "subgroups": "test_get_rank_size_group test_destroy_group",
        "DDP": """test_DistributedDataParallel_requires_grad test_accumulate_gradients_no_sync
            test_ddp_device test_ddp_new_tensor_in_fwd_static_graph test_ddp_hook_parity_allreduce
            test_ddp_native_mixed_precision_grad_as_bucket_view_set_grad_to_none
            test_ddp_broadcast_buffer test_ddp_sync_module_states
            test_ddp_join_model_equivalence""",
    },
    least_passed=120,  # 131 on torch 2.15, 134 on 2.11
)

EXPECTATIONS = {"gloo": GLOO, "nccl": NCCL}
