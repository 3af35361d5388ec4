"""What calls cost without any exchange: the floor of small messages.

Where ranks outnumber cores a call gives way to the next rank when it is done, as one that waits for
that rank would. Then each finds the caches as the other has left them, which makes the same lines
several times as slow.
"""

import os
from collections.abc import Callable

import networkx as nx
import torch.distributed as dist

import bluefog_pg as bf
from harness.case import Case, Contender

LARGEST = 64 << 10  # bytes, from where on the exchange is what counts


def neighbor_allreduce_alone(case: Case) -> Contender:
    """bf.neighbor_allreduce in a group of this rank only."""
    group = dist.new_group([case.world.rank], backend="bluefog", use_local_synchronization=True)
    graph = nx.DiGraph()
    graph.add_node(0)
    bf.set_topology(graph, group=group)
    return _alone(lambda step: bf.neighbor_allreduce(case.x, step=step, out=case.y, group=group))


def all_reduce_alone(case: Case) -> Contender:
    """torch.distributed.all_reduce over a backend of torch's that does nothing."""
    from torch.testing._internal.distributed import fake_pg  # noqa: F401 registers it

    group = dist.new_group(backend="fake")
    return _alone(lambda step: dist.all_reduce(case.y, group=group))


def _alone(call: Callable[[int], object]) -> Contender:
    yields = dist.get_world_size() > len(os.sched_getaffinity(0))

    def once(step: int) -> None:
        call(step)
        if yields:
            os.sched_yield()

    return Contender(once, lambda: None)
