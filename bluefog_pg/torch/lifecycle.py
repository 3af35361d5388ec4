"""Start and end: `init`, `shutdown`, `suspend`, `resume`."""

import atexit
import os
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch.distributed as dist

from bluefog_pg.group import backend_of
from bluefog_pg.torch import handles, layout, timeline
from bluefog_pg.torch.context import Context, current, replace
from bluefog_pg.torch.topologies import set_topology

RANKS_PER_MACHINE = "BLUEFOG_NODES_PER_MACHINE"


def init(
    topology_fn: Callable[[int], nx.DiGraph] | None = None,
    is_weighted: bool = False,
    *,
    local_size: int | None = None,
) -> None:
    """Sets everything up, and the topology. Collective; may be called again for another topology.

    Joins the default process group if it is of backend "bluefog"; makes one beside it if it is of
    another backend; makes the default one from torchrun's environment if there is none, or, without
    that environment, one of this single process.

    Args:
        topology_fn: makes the graph from the number of ranks; default: ExponentialGraph.
        is_weighted: as in `set_topology`.
        local_size: take each so many ranks in a row for a machine, to try hierarchical operations
            on one; default: the environment variable BLUEFOG_NODES_PER_MACHINE, or as they run.

    Raises:
        ValueError: local_size does not divide the number of ranks, or is another one than before.
        TypeError, MismatchError: as `set_topology`.
    """
    if not _is_alive():
        shutdown()
        _start(local_size)
    elif local_size not in (None, len(current().layout.local_ranks)):
        raise ValueError(
            "machines have been laid out: call bf.shutdown() before another local_size"
        )
    topology = topology_fn(current().backend.size()) if topology_fn else None
    set_topology(topology, is_weighted)


def shutdown() -> None:
    """Forgets all, writes the timeline, and destroys the process group if `init` has made it."""
    if context := replace(None):
        context.resources.close()


def suspend() -> None:
    """Refuses operations until `resume`. Nothing else is to be done: idle threads sleep here."""
    current().is_suspended = True


def resume() -> None:
    """Ends what `suspend` began."""
    current().is_suspended = False


def _is_alive() -> bool:
    """Whether there is a context, and its process group has not been destroyed by the program."""
    try:
        return current().world is dist.group.WORLD
    except ValueError:
        return False


def _start(local_size: int | None) -> None:
    if local_size is None and RANKS_PER_MACHINE in os.environ:
        local_size = int(os.environ[RANKS_PER_MACHINE])
    group, is_own = _group()
    backend = backend_of(group)
    context = Context(dist.group.WORLD, group, backend, layout.find(backend, local_size))
    if is_own:
        context.resources.callback(_destroy, context)
    context.resources.callback(handles.forget_all)
    timeline.begin(context)
    replace(context)
    atexit.unregister(shutdown)
    atexit.register(shutdown)


def _group() -> tuple[Any, bool]:
    """Returns a group of backend "bluefog", and whether it was made here."""
    if not dist.is_initialized():
        if "RANK" in os.environ:
            dist.init_process_group("bluefog")
        else:
            dist.init_process_group("bluefog", store=dist.HashStore(), rank=0, world_size=1)
        return dist.group.WORLD, True
    try:
        backend_of(None)
        return dist.group.WORLD, False
    except ValueError:
        return dist.new_group(backend="bluefog"), True


def _destroy(context: Context) -> None:
    if dist.is_initialized() and dist.group.WORLD is context.world:
        dist.destroy_process_group(context.group)
