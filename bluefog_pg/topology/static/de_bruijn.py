"""De Bruijn graphs: exact averaging in log_p n steps of one static graph.

Nguyen, Jiang, Ying and Uribe, "On graphs with finite-time consensus and their use in gradient
tracking", 2023 (arXiv 2311.01317).
"""

import networkx as nx

from ..arguments import check_int
from ..build import SizeError, check_size, powers
from ..registry import register


@register
def de_bruijn(n: int, p: int = 2) -> nx.DiGraph:
    """Rank j sends to (p j + r) mod n for r = 0..p-1, all weights 1/p; n = p^tau.

    Directed; W^tau = J: any tau steps average exactly. Only p ranks have a self-loop, so most give
    their own value no weight: good for consensus and gradient tracking, not for methods that need
    W_ii > 0.

    Raises:
        SizeError: n is no power of p.
        ValueError: n below 1, or p below 2.
    """
    n = check_size(n)
    p = check_int("p", p, low=2)
    if n not in powers(p, n + 1):
        raise SizeError(
            f"de_bruijn with p={p} exists for n = 1, {p}, {p**2}, ..., powers of p, not for n={n}"
        )
    if n == 1:
        p = 1  # the one rank sends to itself once, not p times
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from((j, (p * j + r) % n, 1 / p) for j in range(n) for r in range(p))
    return graph
