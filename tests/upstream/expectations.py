"""What compare.py cannot know from the run on gloo: expected differences, and the quick subset."""

from packaging.specifiers import SpecifierSet

KNOWN = {  # torch versions -> test -> why no third-party backend can pass it
    ">=2.11": {
        "test_ddp_logging_data_cpu": "torch's C++ getBackendName() says 'custom' for any plugin",
    },
    ">=2.11,<2.14": {
        "test_monitored_barrier_gloo": "torch's Python refuses every name but 'gloo'",
        "test_monitored_barrier_gloo_subgroup": "torch's Python refuses every name but 'gloo'",
    },
}

# At least one of each family that runs on gloo, and all of KNOWN. About half a second each.
QUICK = {
    "init": "test_get_backend test_get_rank test_Backend_enum_class",
    "broadcast": "test_broadcast test_broadcast_full_group",
    "all_reduce": """test_all_reduce_sum test_all_reduce_sum_async test_all_reduce_sum_complex
        test_all_reduce_full_group_max test_all_reduce_coalesced_sum test_sparse_all_reduce_sum""",
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
}

LEAST_RUN_BY_GLOO = 85  # of the whole suite: 91 on torch 2.11 and 2.15, on a machine without a GPU


def known_failures(torch_version):
    """test -> reason, for this version of torch."""
    known = {}
    for versions, tests in KNOWN.items():
        if SpecifierSet(versions).contains(torch_version, prereleases=True):
            known |= tests
    return known


def quick_tests():
    tests = [test for names in QUICK.values() for test in names.split()]
    missing = {test for table in KNOWN.values() for test in table} - set(tests)
    assert not missing, f"QUICK lacks {missing}, which are in KNOWN"
    return tests
