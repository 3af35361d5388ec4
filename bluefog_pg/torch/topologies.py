"""Who averages with whom: the graph of ranks, and that of machines."""

import logging

import networkx as nx

from bluefog_pg import ops
from bluefog_pg import topology as topologies
from bluefog_pg.topology.graph import check_graph, check_type
from bluefog_pg.torch.context import Chosen, current, machine_rank, machine_size
from bluefog_pg.torch.windows import get_current_created_window_names

_logger = logging.getLogger("bluefog_pg.torch")


def set_topology(topology: nx.DiGraph | None = None, is_weighted: bool = False) -> bool:
    """Sets the graph of ranks, and whether its weights count. Collective.

    Args:
        topology: edge (j, i) carries the weight that i gives to what j sends; default:
            ExponentialGraph.
        is_weighted: False (the default): the weights are ignored, and each rank takes the plain
            average, 1 / (in-degree + 1), of itself and its in-neighbours.

    Returns:
        False, and an error in the log, while there are windows, which keep the topology; else True.

    Raises:
        TypeError: not an nx.DiGraph, or not of as many nodes as there are ranks.
        MismatchError: the ranks' graphs differ. It is a ValueError too.
    """
    context = current()
    if names := get_current_created_window_names():
        _logger.error("set_topology: free the windows %s first", names)
        return False

    def checked(size: int) -> nx.DiGraph:  # called where errors are told to all ranks
        return chosen(topology, is_weighted, size, "rank").used()

    ops.set_topology(checked, context.group)
    context.topology = chosen(topology, is_weighted, context.backend.size(), "rank")
    return True


def load_topology() -> nx.DiGraph:
    """Returns the graph of ranks, as it was given."""
    return _graph(current().topology)


def set_machine_topology(topology: nx.DiGraph, is_weighted: bool = False) -> bool:
    """Sets the graph of machines, for hierarchical operations. Local: give all ranks the same.

    Raises:
        ValueError: the topology is None.
        TypeError: not an nx.DiGraph, or not of as many nodes as there are machines.
    """
    if topology is None:
        raise ValueError("set_machine_topology needs a topology, an nx.DiGraph on the machines")
    current().machine_topology = chosen(topology, is_weighted, machine_size(), "machine")
    return True


def load_machine_topology() -> nx.DiGraph | None:
    """Returns the graph of machines; None before `set_machine_topology`."""
    return _graph(current().machine_topology)


def in_neighbor_ranks() -> list[int]:
    """Returns the ranks that this one receives from, ascending, without itself."""
    return _sources(current().topology, current().backend.rank())


def out_neighbor_ranks() -> list[int]:
    """Returns the ranks that this one sends to, ascending, without itself."""
    return _destinations(current().topology, current().backend.rank())


def in_neighbor_machine_ranks() -> list[int]:
    """Returns the machines that this one receives from; [] without a machine topology."""
    return _sources(current().machine_topology, machine_rank())


def out_neighbor_machine_ranks() -> list[int]:
    """Returns the machines that this one sends to; [] without a machine topology."""
    return _destinations(current().machine_topology, machine_rank())


def is_topo_weighted() -> bool:
    """Whether the weights of the topology count."""
    return _is_weighted(current().topology)


def is_machine_topo_weighted() -> bool:
    """Whether the weights of the machine topology count."""
    return _is_weighted(current().machine_topology)


def chosen(topology: nx.DiGraph | None, is_weighted: bool, size: int, of: str) -> Chosen:
    """Returns the checked graph for `size` ranks or machines; see `set_topology`."""
    graph = topologies.ExponentialGraph(size) if topology is None else topology
    check_type(graph, expected="an nx.DiGraph")
    if len(graph) != size:
        raise TypeError(f"topology has {len(graph)} nodes, but there are {size} {of}s")
    result = Chosen(graph, bool(is_weighted))
    check_graph(result.used(), size)
    return result


def _graph(of: Chosen | None) -> nx.DiGraph | None:
    return None if of is None else of.graph


def _is_weighted(of: Chosen | None) -> bool:
    return of is not None and of.is_weighted


def _sources(of: Chosen | None, number: int) -> list[int]:
    return [] if of is None else [*topologies.recv_weights(of.used(), number)[1]]


def _destinations(of: Chosen | None, number: int) -> list[int]:
    return [] if of is None else topologies.send_ranks(of.graph, number)
