"""Base-(k+1) graphs: the exact average for any number of ranks at degree k.

Takezawa, Sato, Bao, Niwa and Yamada, "Beyond Exponential Graph: Communication-Efficient Topologies
for Decentralized Learning via Finite-time Convergence", NeurIPS 2023 (arXiv 2305.11420).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, zip_longest

import networkx as nx

from ..arguments import check_int
from ..build import check_size
from ..registry import register
from ..schedule import Schedule
from .cuboid import axis_groups, fewest_factors, prime_factors
from .peer_rounds import Edge, averages, round_graph

Plan = list[list[Edge]]
"""The edges of each round, with the self-loops of the ranks that take part; others are idle."""


@register
def base_graph(n: int, k: int = 1) -> Schedule:
    """The Base-(k+1) graph: at most k peers per step, and the exact average once per period.

    Symmetric. For n without prime factors above k + 1 it is `hyper_cuboid(n, k)`; otherwise the
    period is at most 2 log_{k+1} n + 2 (k = 1: 4 for n = 6, 5 for 7, 9 for 17, 15 for 300). Some
    ranks are idle in some rounds. For n = 1 the period is 1, and the graph is a lone self-loop.

    Args:
        n: number of ranks.
        k: largest allowed degree.

    Raises:
        ValueError: n or k below 1.
    """
    n, k = check_size(n), check_int("k", k, 1)
    plan = _simple_base(range(n), k) or [[]]
    q = math.prod(factor for factor in prime_factors(n) if factor > k + 1)
    if 1 < q < n:
        plan = min(plan, _split_base(n, q, k), key=len)
    return Schedule(partial(_round, n, plan), size=n, period=len(plan), name="base_graph")


def _round(n: int, plan: Plan, step: int) -> nx.DiGraph:
    return round_graph(n, plan[step])


def _split_base(n: int, q: int, k: int) -> Plan:
    """Simple graphs of q nodes side by side, then hyper-cuboids of n/q nodes across them.

    n/q is the largest divisor of n without prime factors above k + 1.
    """
    simple = (_simple_base(range(first, first + q), k) for first in range(0, n, q))
    across = (_cuboid(range(first, n, q), k) for first in range(q))
    return _side_by_side(simple) + _side_by_side(across)


def _simple_base(nodes: Sequence[int], k: int) -> Plan:
    """The simple Base-(k+1) graph.

    First every V_l averages inside. Then V_1, V_2, ... in turn meet the nodes after them. That
    brings every part of V_l to its share of the sum over V_l and all after it, and those after it
    to the mean of that. The parts then average inside, while the next V_l has its turn.
    """
    if fewest_factors(len(nodes), k + 1) is not None:
        return _cuboid(nodes, k)
    cut = list(_cut(nodes, k))
    inside = [_cuboid([node for part in parts for node in part], k) for parts, _ in cut]
    plans = [*inside]
    for turn, (parts, rest) in enumerate(cut[:-1]):
        idle: Plan = [[]] * (len(inside[0]) + turn)
        inside_parts = _side_by_side(_cuboid(part, k) for part in parts)
        plans.append([*idle, _meet(parts, rest), *inside_parts])
    return _side_by_side(plans)


def _cut(nodes: Sequence[int], k: int) -> Iterator[tuple[list[Sequence[int]], Sequence[int]]]:
    """Gives V_1, V_2, ..., each as (its parts, the nodes after it).

    V_l stands for the l-th digit a of len(nodes) in base k + 1 that is not 0, and has a parts of
    (k + 1)^p nodes, where p is the digit's place.
    """
    size = 1
    while size * (k + 1) <= len(nodes):
        size *= k + 1
    while nodes:
        end = len(nodes) // size * size
        parts, nodes = [nodes[i : i + size] for i in range(0, end, size)], nodes[end:]
        if parts:
            yield parts, nodes
        size //= k + 1


def _meet(parts: Sequence[Sequence[int]], rest: Sequence[int]) -> list[Edge]:
    """The i-th node of `rest` exchanges with the i-th node of every part."""
    total = sum(map(len, parts)) + len(rest)
    weight = len(parts[0]) / total  # |V_l| / (a_l sum_{j >= l} |V_j|)
    edges = [(node, node, len(rest) / total) for node in rest]
    for part in parts:
        for node, peer in zip(rest, part, strict=False):  # a part is longer than the rest
            edges += [(node, peer, weight), (peer, node, weight), (peer, peer, 1 - weight)]
    return edges


def _cuboid(nodes: Sequence[int], k: int) -> Plan:
    factors = fewest_factors(len(nodes), k + 1)
    assert factors is not None
    return [averages(axis_groups(nodes, factors, axis)) for axis in range(len(factors))]


def _side_by_side(plans: Iterable[Plan]) -> Plan:
    """Plans on disjoint nodes, or whose rounds on the same node don't coincide, run at once."""
    return [list(chain(*rounds)) for rounds in zip_longest(*plans, fillvalue=[])]
