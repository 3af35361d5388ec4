"""What every graph must be, be it a static topology or one round of a schedule."""

from collections.abc import Set

import networkx as nx

from .weights import all_recv_weights


def check_graph(graph: nx.DiGraph, size: int, owner: str = "group") -> None:
    """Checks that `graph` is an nx.DiGraph on exactly 0..size-1 with finite weights.

    Args:
        graph: the graph of one step.
        size: number of ranks.
        owner: whose size it is, for the message: "the group has 4 ranks".

    Raises:
        TypeError: not an nx.DiGraph, or a weight that is not a number.
        ValueError: other nodes, or weights that `recv_weights` refuses.
    """
    check_type(graph)
    check_nodes(graph, size, owner)
    all_recv_weights(graph)


def check_nodes(graph: nx.Graph, size: int, owner: str = "group") -> None:
    """Raises ValueError unless the nodes are exactly 0..size-1; see `check_graph`."""
    if len(graph) != size:
        raise ValueError(f"topology has {len(graph)} nodes, the {owner} has {size} ranks")
    ranks = set(range(size))
    if set(graph) != ranks:
        raise ValueError(
            f"the nodes of a topology must be the ranks 0..{size - 1}; "
            f"missing: {_some(ranks - set(graph))}; not a rank: {_some(set(graph) - ranks)}"
        )


def check_type(graph: object, expected: str = "an nx.DiGraph or a Schedule") -> None:
    """Raises TypeError, with the way to get an nx.DiGraph, where `graph` is something else."""
    # nx.MultiDiGraph is a subclass of nx.DiGraph.
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        shown = repr(graph) if isinstance(graph, str) else type(graph).__name__
        raise TypeError(f"a topology must be {expected}, got {shown}{_hint(graph)}")


def _hint(value: object) -> str:
    if isinstance(value, nx.Graph) and value.is_multigraph():
        return "; merge its parallel edges (nx.DiGraph(graph) keeps one of each)"
    if isinstance(value, nx.Graph):
        return "; an undirected graph is converted with graph.to_directed()"
    if isinstance(value, str):
        return "; bluefog_pg.topology.get(name)(n) makes a topology from its name"
    if callable(value):
        return "; call it: a constructor with the number of ranks, a schedule with a step"
    return ""


def _some(nodes: Set[object], limit: int = 8) -> str:
    """The first few nodes; ints sort by value, other types after them by their text."""
    ranks = sorted(node for node in nodes if isinstance(node, int))
    others = sorted(repr(node) for node in nodes if not isinstance(node, int))
    shown = [*map(str, ranks), *others]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return (", ".join(shown[:limit]) or "none") + more
