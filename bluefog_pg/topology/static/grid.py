"""Grids: ranks in rows and columns, without and with wrap-around, and the hypercube."""

import math
import operator
from collections.abc import Sequence

import networkx as nx

from ..build import SizeError, check_size, metropolis_hastings, powers
from ..registry import register


@register
def mesh2d(n: int, shape: Sequence[int] | None = None) -> nx.DiGraph:
    """A 2-d grid without wrap-around, ranks in row-major order, Metropolis-Hastings weights.

    Symmetric; at most 4 neighbours; the consensus rate of a square grid is 1 - O(1/n).

    Args:
        n: number of ranks.
        shape: (rows, columns) with rows * columns = n. Default: the two factors of n closest to
            each other, rows <= columns; for a prime n that is a line.

    Raises:
        ValueError: n below 1, or a shape that does not hold n ranks.
    """
    n = check_size(n)
    return _grid(n, shape, periodic=False)


@register
def torus2d(n: int, shape: Sequence[int] | None = None) -> nx.DiGraph:
    """A 2-d grid whose rows and columns are closed to rings, ranks in row-major order.

    Each rank has 2 neighbours in a dimension of 3 or more, 1 in a dimension of 2 and none in a
    dimension of 1; with d of them together all weights are 1 / (1 + d). Symmetric; at most 4
    neighbours; the consensus rate of a square torus is 1 - O(1/n).

    Args:
        n: number of ranks.
        shape: (rows, columns) with rows * columns = n. Default: the two factors of n closest to
            each other, rows <= columns; for a prime n that is a ring.

    Raises:
        ValueError: n below 1, or a shape that does not hold n ranks.
    """
    n = check_size(n)
    return _grid(n, shape, periodic=True)


@register
def hypercube(n: int) -> nx.DiGraph:
    """Ranks exchange if their numbers differ in exactly one bit, all weights 1 / (1 + log2 n).

    Symmetric; the consensus rate is 1 - 2 / (1 + log2 n) for n >= 2.

    Raises:
        SizeError: n is no power of two.
        ValueError: n below 1.
    """
    n = check_size(n)
    if n & (n - 1):
        raise SizeError(f"hypercube exists for n = 1, 2, 4, 8, ..., powers of two, not for n={n}")
    cube = nx.Graph()
    cube.add_nodes_from(range(n))
    cube.add_edges_from((i, i ^ bit) for i in range(n) for bit in powers(2, n))
    return metropolis_hastings(cube)


def _grid(n: int, shape: Sequence[int] | None, periodic: bool) -> nx.DiGraph:
    rows, columns = _closest_factors(n) if shape is None else _check_shape(n, shape)
    # Around a dimension of 2 or 1 networkx makes an edge that exists or a self-loop: no neighbour.
    grid = nx.grid_2d_graph(rows, columns, periodic=periodic)
    return metropolis_hastings(nx.relabel_nodes(grid, {(r, c): r * columns + c for r, c in grid}))


def _closest_factors(n: int) -> tuple[int, int]:
    rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
    return rows, n // rows


def _check_shape(n: int, shape: Sequence[int]) -> tuple[int, int]:
    try:
        rows, columns = map(operator.index, shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape must be two ints (rows, columns), got {shape!r}") from None
    if rows < 1 or columns < 1:
        raise ValueError(f"shape must be two ints of at least 1, got {rows} x {columns}")
    if rows * columns != n:
        raise ValueError(f"shape {rows} x {columns} holds {rows * columns} ranks, not n={n}")
    return rows, columns
