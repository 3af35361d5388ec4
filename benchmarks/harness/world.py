"""The ranks of a run and the groups that they share."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import bluefog_pg as bf
from harness.launch import adopt_mpi_ranks

_TIMEOUT = timedelta(seconds=60)  # for a contender whose peer has failed


@dataclass(frozen=True)
class World:
    """Each contender has a group of its own; the default group, on Gloo, is the benchmark's.

    decent-dp is the exception: it knows only the default group.
    """

    rank: int
    size: int
    bluefog: dist.ProcessGroup
    tcp: dist.ProcessGroup  # bluefog's, as if every rank had a host of its own
    gloo: dist.ProcessGroup
    mpi: Any  # mpi4py.MPI, or None

    @staticmethod
    def join() -> "World":
        """Collective: called once by every process that `start_ranks` has started."""
        with_mpi = adopt_mpi_ranks()
        torch.set_num_threads(1)
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        bluefog = dist.new_group(backend="bluefog", timeout=_TIMEOUT)
        options = bf.BluefogOptions(transport="tcp")
        tcp = dist.new_group(backend="bluefog", timeout=_TIMEOUT, pg_options=options)
        gloo = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        mpi = None
        if with_mpi:
            from mpi4py import MPI as mpi
        return World(dist.get_rank(), dist.get_world_size(), bluefog, tcp, gloo, mpi)

    def gather(self, value: Any) -> list[Any]:
        """Returns all ranks' values, on all ranks."""
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values
