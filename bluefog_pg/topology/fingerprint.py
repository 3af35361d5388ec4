"""Whether ranks hold the same topology, and where they differ."""

import hashlib
import struct
from collections.abc import Iterator, Sequence

import networkx as nx
import numpy as np

from .schedule import Schedule, rounds
from .weights import recv_weights

Edge = Sequence[float]
"""[step, source rank, destination rank, weight]; a list, so that JSON gives back what it took."""


def edge_list(topology: nx.DiGraph | Schedule) -> list[list[float]]:
    """Returns [[step, src, dst, weight], ...] in ascending order, fit for JSON.

    All rounds of a period are in it, or the rounds 0..63 of a schedule that never repeats. The
    weights are those that are applied (see `recv_weights`), so that a graph without weights and
    one with the same uniform weights written out give equal lists. Every rank has its self weight
    in it, as the edge [step, rank, rank, weight].
    """
    return [
        [step, src, dst, weight]
        for step, graph in enumerate(rounds(topology))
        for src, dst, weight in sorted(_weighted_edges(graph))
    ]


def fingerprint(topology: nx.DiGraph | Schedule) -> bytes:
    """Returns 32 bytes, equal for topologies with equal size, rounds, edges and weights.

    SHA-256 over the size, the period (0 for none) and `edge_list`, all little-endian, weights as
    float64. Weights are compared bit by bit: compute them the same way on all ranks. A static graph
    equals the schedule that consists of it alone.
    """
    if isinstance(topology, Schedule):
        size, period = topology.size, topology.period or 0
    else:
        size, period = len(topology), 1
    edges = np.array(edge_list(topology), dtype="<f8") + 0.0  # + 0.0 turns -0.0 into 0.0
    return hashlib.sha256(struct.pack("<qq", size, period) + edges.tobytes()).digest()


def describe_difference(
    edges_a: Sequence[Edge],
    edges_b: Sequence[Edge],
    name_a: str = "a",
    name_b: str = "b",
    limit: int = 8,
) -> str:
    """Says in one line which edges differ between two results of `edge_list`.

    Args:
        edges_a, edges_b: the lists, as they are or after a way through JSON.
        name_a, name_b: whose they are, for example "rank 0" and "rank 3".
        limit: how many edges to name; the others are counted.

    Returns:
        ``edge 0 -> 1 at step 2: weight 0.5 on rank 0, absent on rank 3; ... and 4 more edges``, or
        an empty string if the lists are equal. Steps are left out if there is only step 0.
    """
    a, b = _by_edge(edges_a), _by_edge(edges_b)
    differing = sorted(edge for edge in a.keys() | b.keys() if a.get(edge) != b.get(edge))
    has_steps = any(step > 0 for step, _, _ in a.keys() | b.keys())
    parts = [
        f"edge {src} -> {dst}{f' at step {step}' if has_steps else ''}: "
        f"{_weight(a.get((step, src, dst)))} on {name_a}, "
        f"{_weight(b.get((step, src, dst)))} on {name_b}"
        for step, src, dst in differing[:limit]
    ]
    if len(differing) > limit:
        parts.append(f"and {len(differing) - limit} more edges")
    return "; ".join(parts)


def _weighted_edges(graph: nx.DiGraph) -> Iterator[tuple[int, int, float]]:
    for dst in range(len(graph)):
        self_weight, sources = recv_weights(graph, dst)
        yield dst, dst, self_weight
        for src, weight in sources.items():
            yield src, dst, weight


def _by_edge(edges: Sequence[Edge]) -> dict[tuple[int, int, int], float]:
    return {(int(step), int(src), int(dst)): weight for step, src, dst, weight in edges}


def _weight(weight: float | None) -> str:
    return "absent" if weight is None else f"weight {weight!r}"
