"""Trees."""

import networkx as nx

from ..arguments import check_int
from ..build import check_size, metropolis_hastings
from ..registry import register


@register
def balanced_tree(n: int, branching: int = 2) -> nx.DiGraph:
    """A tree in which rank i exchanges with its children, Metropolis-Hastings weights.

    They are the ranks branching * i + 1 .. branching * (i + 1). Symmetric; at most branching + 1
    neighbours, and about 2 log_branching(n) edges between any two ranks. A branching of 1 is the
    chain 0, 1, ..., n - 1.

    Args:
        n: number of ranks.
        branching: number of children.

    Raises:
        ValueError: n or branching is below 1.
    """
    n = check_size(n)
    return metropolis_hastings(nx.full_rary_tree(check_int("branching", branching, 1), n))
