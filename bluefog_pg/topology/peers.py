"""Graphs from what each rank says that it sends and receives."""

from collections import Counter
from collections.abc import Sequence

import networkx as nx

from .build import check_size


def from_peers(sends: Sequence[Sequence[int]], receives: Sequence[Sequence[int]]) -> nx.DiGraph:
    """Returns the graph in which rank i sends to sends[i] and receives from receives[i].

    It has no weights, which means uniform ones (see `recv_weights`).

    Raises:
        ValueError: the lists are not equally many, name a rank twice, one that is not in 0..n-1 or
            the one that they belong to, or a send is not expected or a receive not sent; the
            message names the ranks.
    """
    n = check_size(len(sends))
    if len(receives) != n:
        raise ValueError(f"there are lists of sends for {n} ranks, of receives for {len(receives)}")
    _check_lists("sends to", sends)
    _check_lists("receives from", receives)
    sent = {(src, dst) for src, peers in enumerate(sends) for dst in peers}
    expected = {(src, dst) for dst, peers in enumerate(receives) for src in peers}
    unheard = (
        f"rank {i} sends to rank {j}, which does not receive from it" for i, j in sent - expected
    )
    unsent = (
        f"rank {j} receives from rank {i}, which does not send to it" for i, j in expected - sent
    )
    complaints = sorted([*unheard, *unsent])
    if complaints:
        raise ValueError("sends and receives do not match: " + "; ".join(complaints))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(sorted(sent))
    return graph


def _check_lists(verb: str, lists: Sequence[Sequence[int]]) -> None:
    for rank, peers in enumerate(lists):
        for peer, count in Counter(peers).items():
            if peer == rank or peer not in range(len(lists)):
                what = "itself" if peer == rank else f"{peer!r}, no rank of 0..{len(lists) - 1}"
                raise ValueError(f"rank {rank} {verb} {what}")
            if count > 1:
                raise ValueError(f"rank {rank} {verb} rank {peer} {count} times")
