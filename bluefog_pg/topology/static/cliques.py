"""Groups of ranks that average among themselves; no constructor by name, as it never mixes all."""

import networkx as nx

from ..arguments import check_int
from ..build import SizeError, check_size
from ..dynamic.peer_rounds import averages, round_graph


def cliques(n: int, ranks_per_group: int) -> nx.DiGraph:
    """Disjoint complete graphs of ranks side by side: 0..g-1, g..2g-1, ...; all weights 1/g.

    Raises:
        SizeError: ranks_per_group, g, does not divide n.
        ValueError: one of them is below 1.
    """
    n, size = check_size(n), check_int("ranks_per_group", ranks_per_group, 1)
    if n % size:
        raise SizeError(f"groups of {size} ranks do not divide {n} ranks")
    return round_graph(n, averages(range(first, first + size) for first in range(0, n, size)))
