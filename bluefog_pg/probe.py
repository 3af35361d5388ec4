"""Measures the links of a live group, for `bluefog_pg.topology.choose`."""

import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from bluefog_pg.group import all_gather_bytes, backend_of
from bluefog_pg.ops import neighbor_allreduce
from bluefog_pg.topology import Link, Links

SMALL_BYTES = 64
LARGE_BYTES = 4 << 20


def probe_links(group: Any = None, *, large_bytes: int = LARGE_BYTES, repeats: int = 7) -> Links:
    """Measures latency and bandwidth between ranks of one host and between hosts.

    Collective: every rank of the group calls it, with equal arguments, and all get equal results.
    Ranks that reach each other through shared memory count as being on one host. Each kind of link
    is timed while all ranks that have one send over it at once, rank i to rank i + s for one s, as
    in a round of a one-peer schedule; the slowest rank counts. The group's topology and step are
    left as they are. Takes about `repeats` times the exchange of a few large messages.

    Args:
        group: a process group of backend "bluefog"; default: the world.
        large_bytes: size of the message that tells the bandwidth.
        repeats: exchanges per size; the median counts.

    Returns:
        Links for ``choose(n, links=...)``. A kind that the group does not have keeps its default.

    Raises:
        ValueError: repeats or large_bytes is too small, or as `neighbor_allreduce`.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if large_bytes <= SMALL_BYTES:
        raise ValueError(f"large_bytes must be above {SMALL_BYTES}, got {large_bytes}")
    backend = backend_of(group)
    rank, size = backend.rank(), backend.size()
    hosts = _hosts(backend)
    measured = {}
    for kind, same in (("same_host", True), ("other_host", False)):
        shift = _busiest_shift(hosts, same)
        if shift is None:
            continue
        src, dst = (rank - shift) % size, (rank + shift) % size
        sources = [src] if (hosts[src] == hosts[rank]) == same else []
        destinations = [dst] if (hosts[dst] == hosts[rank]) == same else []
        small, large = (
            _median_seconds(backend, nbytes, sources, destinations, repeats)
            for nbytes in (SMALL_BYTES, large_bytes)
        )
        measured[kind] = _link(small, large, large_bytes)
    return Links(hosts=hosts, **measured)


def _hosts(backend: Any) -> tuple[int, ...]:
    """The host of each rank, the same on all ranks: the lowest rank that shares memory with it."""
    rank, size = backend.rank(), backend.size()
    own = [r for r in range(size) if r == rank or backend.transport_of(r) == "shm"]
    return tuple(
        min(json.loads(text)) for text in all_gather_bytes(backend, json.dumps(own).encode())
    )


def _busiest_shift(hosts: Sequence[int], same: bool) -> int | None:
    """The s with the most pairs (i, i + s) on one host, or not; None if there are none."""
    n = len(hosts)

    def pairs(shift: int) -> int:
        return sum((hosts[i] == hosts[(i + shift) % n]) == same for i in range(n))

    best = max(range(1, n), key=pairs, default=None)
    return best if best and pairs(best) else None


def _median_seconds(
    backend: Any, nbytes: int, sources: Sequence[int], destinations: Sequence[int], repeats: int
) -> float:
    """The median time of an exchange on the slowest rank; equal on all ranks."""
    x = torch.zeros(nbytes // 4)
    y = torch.empty_like(x)
    times = []
    for _ in range(repeats + 1):  # the first one connects, and brings pages into memory
        backend.barrier().wait()  # so that nobody is timed waiting for a late neighbour
        start = time.perf_counter()
        neighbor_allreduce(x, src_weights=sources, dst_weights=destinations, out=y, group=backend)
        times.append(time.perf_counter() - start)
    own = statistics.median(times[1:])
    return max(json.loads(text) for text in all_gather_bytes(backend, json.dumps(own).encode()))


def _link(small: float, large: float, large_bytes: int) -> Link:
    """latency + bytes / bandwidth through two points; noise may turn the line, never the sign."""
    slope = (large - small) / (large_bytes - SMALL_BYTES)
    if slope <= 0:
        return Link(latency=small, bandwidth=large_bytes / large)
    return Link(latency=max(small - slope * SMALL_BYTES, 0.0), bandwidth=1 / slope)
