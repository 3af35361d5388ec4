"""The weights that a call brings along: self_weight, src_weights, dst_weights."""

import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from bluefog_pg._extension import load
from bluefog_pg.group import compare_plans

SrcWeights = Mapping[int, float]
DstWeights = Mapping[int, float] | Sequence[int]


def of_call(
    self_weight: float | None,
    src_weights: SrcWeights | None,
    dst_weights: DstWeights | None,
    needs_all: bool = False,
) -> dict[str, Any]:
    """Returns them as `bluefog_pg.neighbor_allreduce` takes them; {} if none is given.

    Args:
        needs_all: all three or none; otherwise dst_weights may be missing.

    Raises:
        ValueError: one is missing, or is not what it should be.
    """
    given = [value is not None for value in (self_weight, src_weights, dst_weights)]
    if not any(given):
        return {}
    if not all(given if needs_all else given[:2]):
        raise ValueError(
            f"give self_weight, src_weights and {'' if needs_all else 'perhaps '}dst_weights "
            f"together, or none; got {self_weight!r}, {src_weights!r} and {dst_weights!r}"
        )
    if not isinstance(self_weight, Real) or isinstance(self_weight, bool):
        raise ValueError(f"self_weight must be a float, got {self_weight!r}")
    if not isinstance(src_weights, Mapping):
        raise ValueError(f"src_weights must be a dict {{rank: weight}}, got {src_weights!r}")
    weights = {"self_weight": float(self_weight), "src_weights": _by_rank(src_weights)}
    if dst_weights is not None:
        weights["dst_weights"] = by_rank_of(dst_weights)
    return weights


def check_edges(backend: Any, weights: Mapping[str, Any]) -> None:
    """Compares who sends with who receives, on all ranks. Collective.

    Raises:
        MismatchError: on all ranks; a ValueError that names the edges that only one end has.
    """
    sources, destinations = weights["src_weights"], weights["dst_weights"]
    plan = load().Plan(
        backend.rank(),
        backend.size(),
        weights["self_weight"],
        [*sources.items()],
        [*destinations.items()],
    )
    compare_plans(backend, plan)


def by_rank_of(given: DstWeights) -> dict[int, float]:
    """Returns {rank: scale}; scales are 1 for a list.

    Raises:
        ValueError: neither a dict nor a list, or a rank is named twice.
    """
    if isinstance(given, Mapping):
        return _by_rank(given)
    if isinstance(given, str) or not hasattr(given, "__len__"):
        raise ValueError(f"ranks must be a dict or a list of ranks, got {given!r}")
    ranks = [operator.index(rank) for rank in given]
    if len(set(ranks)) < len(ranks):
        raise ValueError(f"a rank is named twice: {ranks}")
    return dict.fromkeys(ranks, 1.0)


def _by_rank(given: Mapping[int, float]) -> dict[int, float]:
    return {operator.index(rank): float(weight) for rank, weight in given.items()}
