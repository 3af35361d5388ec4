"""What wrong input gets: an exception that names ranks and both values, on both ends of an edge.

After every failure the outputs are as they were and the group still averages.
"""

from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import TRANSPORTS, assert_same, dense, exact_weights, raises, start, value_of

import bluefog_pg as bf
from bluefog_pg import MismatchError

BOTH_TRANSPORTS = pytest.mark.parametrize("transport", TRANSPORTS)


def average(*tensors, async_op=False, **kwargs):
    """neighbor_allreduce of the tensors; checks that an error leaves all memory alone."""
    before = [t.clone() for t in tensors]
    outs = [torch.full_like(t, 77) for t in tensors]
    try:
        work = bf.neighbor_allreduce(tensors, out=outs, async_op=async_op, **kwargs)
        if async_op:
            work.wait()
    except Exception:
        assert all(torch.equal(t, was) for t, was in zip(tensors, before, strict=True))
        assert all((out == 77).all() for out in outs)
        raise


def gather(tensor, async_op=False, **kwargs):
    work = bf.neighbor_allgather(tensor, async_op=async_op, **kwargs)
    if async_op:
        work.wait()


def still_works(rank):
    topology = bf.get_topology()
    graph = topology(0) if isinstance(topology, bf.Schedule) else topology
    assert_same(bf.neighbor_allreduce(value_of(rank, (4,))), dense(graph, rank, (4,)))


A, G, ones = partial(partial, average), partial(partial, gather), torch.ones
X, MANY, BIG = ones(3), [ones(2, 2)] * 40, 1 << 21
CALL = {"src_weights": [0, 2], "dst_weights": [0, 2]}
DISAGREEMENTS = [  # what most ranks call, what rank 1 calls, and how a message names the two
    (A(X), A(ones(4)), "1 tensor: float32[3]", "1 tensor: float32[4]"),
    (A(X), A(X.double()), "float32[3]", "float64[3]"),
    (A(X.half()), A(X.bfloat16()), "float16[3]", "bfloat16[3]"),
    (A(ones(2, 3)), A(ones(3, 2)), "float32[2, 3]", "float32[3, 2]"),
    (A(ones(1)), A(ones(())), "float32[1]", "float32[]"),
    (A(ones(0, 3)), A(ones(0, 4)), "float32[0, 3]", "float32[0, 4]"),
    (A(X), A(X, X), "1 tensor: float32[3]", "2 tensors: float32[3], float32[3]"),
    (A(X), A(), "1 tensor: float32[3]", "0 tensors: "),
    (A(ones(4)), A(ones(2), ones(2)), "1 tensor: ", "2 tensors: "),
    (A(*MANY, ones(1)), A(*MANY, ones(2)), "41 tensors: ", "41 tensors: "),
    (A(ones(BIG)), A(ones(BIG + 1)), f"float32[{BIG}]", f"float32[{BIG + 1}]"),
    (A(X, step=4), A(X, step=5), "topology step 0", "topology step 1"),
    (A(X, step=0), A(X, **CALL), "topology step 0", "weights given by the call"),
    (A(X), G(X), "neighbor_allreduce", "neighbor_allgather"),
    (G(X), G(X.double()), "float32[3]", "float64[3]"),
    (G(ones(3, 2)), G(ones(3, 1)), "float32[3, 2]", "float32[3, 1]"),
]


def neighbours_disagree(rank, n, transport):
    """In a ring of 4, rank 1 does something else: ranks 0, 1 and 2 raise, rank 3 is served."""
    start(transport)
    bf.set_topology(bf.Schedule(lambda step: exact_weights(bf.ring(n)), n, period=2))
    for usual, odd, a, b in DISAGREEMENTS:
        words = {
            0: ["on rank 0: ", "rank 0 has ", a, ", rank 1 has ", b],
            1: ["on rank 1: ", "rank 0 has ", a, ", rank 1 has ", b, b, ", rank 2 has ", a],
            2: ["on rank 2: ", "rank 1 has ", b, ", rank 2 has ", a],
        }
        for async_op in (False, True):
            call = partial(odd if rank == 1 else usual, async_op=async_op)
            if rank == 3:
                call()
            else:
                raises(MismatchError, " #", *words[rank], call=call)
            still_works(rank)


@BOTH_TRANSPORTS
def test_neighbours_disagree(transport):
    run_ranks(neighbours_disagree, 4, transport)


def views_of_an_edge_differ(rank, n, transport):
    """Each of ranks 0 and 1 wants to receive what the other does not send."""
    start(transport)
    bf.set_topology(exact_weights(bf.ring(n)))
    other = 1 - rank
    for async_op in (False, True):
        call = A(X, self_weight=1.0, src_weights={other: 1.0}, dst_weights=[], async_op=async_op)
        raises(MismatchError, f"on rank {rank}: ", "wants to receive", "destinations", call=call)
        still_works(rank)
        call = A(X, self_weight=1.0, src_weights={}, dst_weights=[other], async_op=async_op)
        raises(MismatchError, f"on rank {rank}: ", " sends to ", "sources", call=call)
        still_works(rank)


@BOTH_TRANSPORTS
def test_views_of_an_edge_differ(transport):
    run_ranks(views_of_an_edge_differ, 2, transport)


def only_one_end_has_the_edge(rank, n):
    """Rank 1 names rank 0 in a call where rank 0 and rank 2 name nobody."""
    start()
    bf.set_topology(exact_weights(bf.ring(n)))
    for sources, destinations, words in [
        ([], [0], "rank 1 sends to rank 0, which does not have it among its sources"),
        ([0], [], "rank 1 wants to receive from rank 0, which does not send to it"),
    ]:
        src, dst = (sources, destinations) if rank == 1 else ([], [])
        raises(MismatchError, words, call=A(X, src_weights=src, dst_weights=dst))
        raises(MismatchError, words, call=G(X, src_ranks=src, dst_ranks=dst))
        still_works(rank)


def test_debug_mode_tells_all_ranks_of_an_edge_that_one_end_has():
    run_ranks(only_one_end_has_the_edge, 3, env={"TORCH_DISTRIBUTED_DEBUG": "DETAIL"})


def step_after_a_refused_call(rank, n):
    """Rank 0 alone makes a mistake, mends it, and is at the same step as the others."""
    start()
    bf.set_topology("one_peer_exponential")
    for step in range(6):
        if rank == 0:
            raises(TypeError, "int64", call=partial(bf.neighbor_allreduce, torch.arange(3)))
            raises(ValueError, "Sparse", call=partial(bf.neighbor_allgather, X.to_sparse()))
        y = bf.neighbor_allreduce(value_of(rank, (3,)))
        assert_same(y, dense(bf.get_topology()(step), rank, (3,)))


def test_a_refused_call_is_no_step():
    run_ranks(step_after_a_refused_call, 4)


def ring_without(n, *edge):
    graph = bf.ring(n)
    graph.remove_edge(*edge)
    return graph


def with_weight(graph, edge, weight):
    graph.edges[edge]["weight"] = weight
    return graph


def fails(n):
    raise KeyError(f"no topology for {n}")


WRONG_TOPOLOGIES = {  # rank 2 brings this one, the others a ring; what they all are told
    "size": (lambda n: bf.ring(n + 1), ValueError, "topology has 5 nodes, the group has 4 ranks"),
    "nodes": (lambda n: nx.DiGraph([(1, 2), (3, 4)]), ValueError, "missing: 0; not a rank: 4"),
    "nan": (lambda n: with_weight(bf.ring(n), (1, 2), float("nan")), ValueError, "(1, 2) is nan"),
    "inf": (lambda n: with_weight(bf.ring(n), (1, 2), float("inf")), ValueError, "(1, 2) is inf"),
    "text": (lambda n: with_weight(bf.ring(n), (1, 2), "half"), TypeError, "(1, 2) is 'half'"),
    "name": (lambda n: "rign", ValueError, "'rign'; known topologies: auto, balanced"),
    "undirected": (lambda n: nx.cycle_graph(n), TypeError, "graph.to_directed()"),
    "none": (lambda n: None, TypeError, "NoneType"),
    "function": (lambda n: fails, KeyError, "no topology for 4"),
    "schedule": (lambda n: bf.one_peer_exponential(8), ValueError, "8 nodes, the group has 4"),
}
OTHER_TOPOLOGIES = {  # the same for valid ones; the edge where they differ
    "edge": (lambda n: ring_without(n, 1, 2), "edge 1 -> 2: weight 0.333", "absent on rank 2"),
    "weight": (
        lambda n: with_weight(bf.ring(n), (2, 3), 0.25),
        "edge 2 -> 3: weight 0.3333333333333333 on rank 0, weight 0.25 on rank 2",
    ),
    "round": (lambda n: bf.Schedule.from_graphs([bf.ring(n), bf.star(n)]), "at step 1", "rank 2"),
}


def wrong_topologies(rank, n):
    start()
    for call in (A(X), G(X), A(X, src_weights=[])):
        raises(ValueError, "no topology is set: call bluefog_pg.set_topology(", call=call)
    bf.set_topology(exact_weights(bf.exponential(n)))
    for make, kind, *words in WRONG_TOPOLOGIES.values():
        call = partial(bf.set_topology, make(n) if rank == 2 else bf.ring(n))
        if rank == 2:
            raises(kind, *words, call=call)
        else:
            raises(MismatchError, "rank 2 cannot use its topology", *words, call=call)
        still_works(rank)  # with the topology that was there before
    for make, *words in OTHER_TOPOLOGIES.values():
        call = partial(bf.set_topology, make(n) if rank == 2 else bf.ring(n))
        raises(MismatchError, "ranks 0 and 2 have different", *words, call=call)
        still_works(rank)


def test_topologies():
    run_ranks(wrong_topologies, 4)


def wrong_arguments(rank, n, transport):
    start(transport)
    bf.set_topology(exact_weights(bf.ring(n)))
    x, left, right = X * (rank + 1), (rank - 1) % n, (rank + 1) % n
    me, group = f"rank {rank}", f"ranks 0 to {n - 1}"
    nan, inf = float("nan"), float("inf")

    def no(kind, *words, x=x, **kwargs):
        raises(kind, *words, call=partial(bf.neighbor_allreduce, x, **kwargs))
        still_works(rank)

    def neither(kind, *words, x):
        raises(kind, *words, call=partial(bf.neighbor_allgather, x))
        no(kind, *words, x=x)

    for wrong in (n, -1, 99):
        no(ValueError, me, f"source {wrong}", group, src_weights=[wrong], dst_weights=[])
        no(ValueError, me, f"destination {wrong}", group, src_weights=[], dst_weights=[wrong])
    no(ValueError, me, "itself as a source", src_weights=[rank], dst_weights=[])
    no(ValueError, me, "itself as a destination", src_weights=[], dst_weights=[rank])
    no(ValueError, me, f"source {left} twice", src_weights=[left, left], dst_weights=[])
    no(ValueError, me, f"destination {left} twice", src_weights=[], dst_weights=[left, left])
    no(ValueError, me, "twice", src_weights=[left, left])
    no(ValueError, me, f"[{rank}]", "in-neighbours", src_weights=[rank])
    no(ValueError, me, "nan", self_weight=nan, src_weights={}, dst_weights=[])
    no(ValueError, me, f"source {left}", "inf", self_weight=1, src_weights={left: inf})
    no(ValueError, me, f"destination {left}", "nan", src_weights=[], dst_weights={left: nan})
    no(ValueError, "src_weights", self_weight=0.5)
    no(ValueError, "src_weights", dst_weights=[left])
    no(ValueError, "self_weight", src_weights={left: 0.5})
    no(ValueError, "step", src_weights=[], dst_weights=[], step=1)
    no(TypeError, "True", src_weights=[True], dst_weights=[])
    no(TypeError, "float", src_weights=[1.0], dst_weights=[])
    no(TypeError, src_weights=1, dst_weights=1)
    no(TypeError, step=0.5)
    no(ValueError, f"rank {2**40} is out of range", src_weights=[2**40], dst_weights=[])
    raises(ValueError, "both", call=partial(bf.neighbor_allgather, x, src_ranks=[left]))
    y = bf.neighbor_allreduce(
        x, src_weights=np.array([left]), dst_weights=[np.int32(right)], self_weight=np.float32(0.5)
    )
    assert_same(y, x / 2 + X * (left + 1) / 2)

    for dtype in (torch.int32, torch.int64, torch.bool, torch.uint8, torch.complex64):
        name = str(dtype).removeprefix("torch.")
        no(TypeError, "float16, bfloat16, float32 and float64", name, "convert", x=x.to(dtype))
    neither(ValueError, "Sparse", "to_dense", x=x.to_sparse())
    neither(ValueError, "SparseCsr", "to_dense", x=torch.eye(3).to_sparse_csr())
    neither(ValueError, "meta", x=x.to("meta"))
    neither(ValueError, "Mkldnn", "to_dense", x=x.to_mkldnn())
    neither(ValueError, "quantized", x=torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))
    neither(TypeError, x=None)
    no(TypeError, x=[x, 3])
    no(ValueError, "output 0 is float32[4]", "input 0 is float32[3]", out=ones(4))
    no(ValueError, "float64[3]", "float32[3]", out=x.double())
    no(ValueError, "1 tensors and 2 outputs", x=[x], out=[x, x])
    no(ValueError, "meta", "cpu", out=x.to("meta"))
    base, a, b = torch.arange(8.0), x.clone(), x.clone()
    no(ValueError, "shares memory with", x=base[:6], out=base[2:])
    no(ValueError, "shares memory with", x=[a, b], out=[b, a])
    no(ValueError, "shares memory with", x=[a, b], out=[base[:3], base[2:5]])
    no(ValueError, "several elements in one place", x=ones(3), out=ones(1).expand(3))
    assert_same(base, torch.arange(8.0))
    assert_same(a, x)


@BOTH_TRANSPORTS
@pytest.mark.filterwarnings("ignore")
def test_arguments(transport):
    run_ranks(wrong_arguments, 3, transport)


def wrong_groups(rank, n):
    raises(ValueError, "init_process_group", call=partial(bf.neighbor_allreduce, X))
    start()
    bf.set_topology(exact_weights(bf.ring(n)))
    pair = dist.new_group([0, 1])
    gloo = dist.new_group(backend="gloo")
    operations = [A(X), G(X), partial(bf.set_topology, "ring"), bf.get_topology]
    for operation in operations:
        raises(ValueError, "'bluefog'", "ProcessGroupGloo", call=partial(operation, group=gloo))
        for group in [dist.GroupMember.NON_GROUP_MEMBER, "world"] + [pair] * (rank > 1):
            raises(ValueError, "not a member", call=partial(operation, group=group))
    if rank < 2:
        raises(ValueError, "no topology is set", call=A(X, group=pair))  # it has its own
        raises(ValueError, "ranks 0 to 1", call=A(X, src_weights=[2], dst_weights=[], group=pair))
    still_works(rank)
    raises(
        ValueError,
        '"auto", "shm", "tcp" or "gloo"',
        call=partial(bf.BluefogOptions, transport="rdma"),
    )
    raises(TypeError, "incompatible", call=partial(bf.BluefogOptions, cuda=3))
    raises(ValueError, "at least 1", call=partial(bf.BluefogOptions, communication_streams=0))
    raises(ValueError, "any number", call=partial(bf.BluefogOptions, max_neighbors=-1))


def test_groups():
    run_ranks(wrong_groups, 3)


@pytest.mark.parametrize("name", ["BLUEFOG_SHM_CHUNK_BYTES", "BLUEFOG_SHM_CHUNKS"])
@pytest.mark.parametrize("value", ["many", "-1", "5000000000", "4097.5"])
def test_environment(name, value):
    run_ranks(bad_environment, 2, name, value, env={name: value})


def bad_environment(rank, n, name, value):
    raises(ValueError, f"{name}={value}", call=start)
