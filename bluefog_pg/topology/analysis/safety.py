"""Which algorithms a topology is safe for.

An algorithm that needs more of W than a topology gives does not fail: it diverges, or settles on
something else than the optimum of the mean. D2 does so on every one-peer graph, whatever the step
size. The papers that the needs come from are named by arXiv id in the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx

from ..dynamic.ceca import CecaSchedule
from ..schedule import Schedule, rounds
from ..weights import has_weights
from .facts import Facts


@dataclass(frozen=True)
class Need:
    """What an algorithm needs of a topology."""

    says: str
    checks: tuple[Callable[[Facts], str | None], ...]
    """Each returns None, or a sentence that says what is missing and names ranks."""


def _reaches_all(facts: Facts) -> str | None:
    return facts.unreachable or facts.cycle


def _doubly_stochastic(facts: Facts) -> str | None:
    return facts.negative_weight or facts.row_sum or facts.column_sum


def _row_stochastic(facts: Facts) -> str | None:
    return facts.negative_weight or facts.row_sum


def _column_stochastic(facts: Facts) -> str | None:
    if not any(map(has_weights, rounds(facts.topology))):
        return None  # it gets the weights of `column_stochastic`
    return facts.negative_weight or facts.column_sum or facts.silent


def _static_and_symmetric(facts: Facts) -> str | None:
    return facts.changes or facts.asymmetry


def _connected(facts: Facts) -> str | None:
    return facts.endless or facts.unreachable


def _both_ways(facts: Facts) -> str | None:
    return facts.endless or facts.one_way


def _spectrum_of_d2(facts: Facts) -> str | None:
    # At -1/3 itself, which even rings have, a mode neither grows nor shrinks where the loss is
    # flat, and shrinks where it is strictly convex.
    smallest = facts.smallest_eigenvalue
    if smallest is None or smallest >= -1 / 3 - 1e-6:
        return None
    return (
        f"the smallest eigenvalue of W is {smallest:.4g} and must be above -1/3; larger self "
        f"weights raise it, or use exact_diffusion"
    )


def _tree(facts: Facts) -> str | None:
    return facts.not_a_tree


def _ceca(facts: Facts) -> str | None:
    if isinstance(facts.topology, CecaSchedule):
        return None
    return "it has two variables per rank; make one with bluefog_pg.topology.ceca(n)"


_AVERAGES = Need(
    "doubly stochastic weights, of a static or a changing graph",
    (_doubly_stochastic, _reaches_all),
)
_SYMMETRIC = Need(
    "a static graph with symmetric, doubly stochastic weights",
    (_static_and_symmetric, _doubly_stochastic, _reaches_all),
)
_PUSH = Need(
    "column-stochastic weights, of a static or a changing graph (column_stochastic(topology) has "
    "them, and a graph without weights gets them)",
    (_column_stochastic, _reaches_all),
)
_NOTHING = Need("nothing of a topology, because it averages over all ranks", ())
_PULL = Need(
    "row-stochastic weights, of a static or a changing graph",
    (_row_stochastic, _reaches_all),
)
# Of a schedule asynchronous algorithms use the edges of all steps at any time.
_CONNECTED = Need(
    "edges that lead from each rank to each other one; weights do not matter", (_connected,)
)
_PAIRWISE = Need("edges that connect all ranks and go both ways", (_both_ways, _connected))
_PULL_ASYNC = Need(
    "row-stochastic weights; a graph that changes must have a period",
    (lambda facts: facts.endless, _row_stochastic, _connected),
)
_NEEDS = {
    "a2cid2": _PAIRWISE,  # 2306.08289
    "ad_psgd": _PAIRWISE,  # 1710.06952
    "async_push_sum": _CONNECTED,
    "atc": _AVERAGES,  # diffusion
    "awc": _AVERAGES,  # D-PSGD, 1705.09056
    "ceca": Need("a CecaSchedule", (_ceca,)),  # 2306.00256
    "d2": Need(_SYMMETRIC.says, (*_SYMMETRIC.checks, _spectrum_of_d2)),  # 1803.07068
    "decentlam": _SYMMETRIC,  # 2104.11981; diverges else, on static exponential graphs as well
    "diging": _AVERAGES,  # 1607.03218
    "diloco": _NOTHING,  # 2311.08105
    "dmsgd": _AVERAGES,  # 1905.03817
    "dmsgd_mixed": _AVERAGES,  # 2110.13363
    "exact_diffusion": _SYMMETRIC,  # 1702.05122
    "extra": _SYMMETRIC,  # 1404.6264
    "gasloc": _AVERAGES,  # 2606.11081
    "gossipgrad": _AVERAGES,  # 1803.05880
    "gradient_allreduce": _NOTHING,
    "gradient_tracking": _AVERAGES,
    "hierarchical_sgd": _NOTHING,  # 2010.12998
    "local_sgd": _NOTHING,  # 1805.09767
    "momentum_tracking": _AVERAGES,  # 2209.15505
    "noloco": _AVERAGES,  # 2506.10911
    "post_local_sgd": _NOTHING,  # 1808.07217
    "push_diging": _PUSH,
    "pull_get": _PULL_ASYNC,
    "push_pull": _PULL,  # AB, 1810.06653; that is R, and C is made of its edges
    "push_sum": _PUSH,  # SGP, 1811.10792
    "qg_dsgdm": _AVERAGES,  # 2102.04761
    "relay_sgd": Need("a static tree", (_tree,)),  # 2110.04175
    "semi_atc_tracking": _AVERAGES,  # 2110.09993
    "slowmo": _NOTHING,  # 1910.00643
    "win_put": _PULL_ASYNC,
}


def algorithms() -> list[str]:
    """Returns the names of the algorithms whose needs are known, sorted."""
    return sorted(_NEEDS)


def need_of(algorithm: str) -> str:
    """Returns, in words, what `algorithm` needs of a topology.

    Raises:
        ValueError: no algorithm has this name; the message lists those that exist.
    """
    return _need(algorithm).says


def safe_for(topology: nx.DiGraph | Schedule) -> tuple[str, ...]:
    """Returns the names of the algorithms that `topology` is safe for, sorted.

    Raises:
        TypeError, ValueError: it is not a valid topology.
    """
    facts = Facts(topology)
    return tuple(name for name in algorithms() if refusal(name, facts) is None)


def require_safe(algorithm: str, topology: nx.DiGraph | Schedule) -> None:
    """Returns if `topology` has what `algorithm` needs of its weights.

    Raises:
        ValueError: it has not; the message says what is needed, what is missing and at which ranks.
            Or no algorithm has this name; the message lists those that exist.
        TypeError, ValueError: it is not a valid topology.
    """
    if problem := refusal(algorithm, Facts(topology)):
        raise ValueError(problem)


def refusal(algorithm: str, facts: Facts) -> str | None:
    """Returns why `algorithm` must not run on this topology; None if it may."""
    need = _need(algorithm)
    problem = next(filter(None, (check(facts) for check in need.checks)), None)
    return problem and f"{algorithm} needs {need.says}: {problem}"


def _need(algorithm: str) -> Need:
    if algorithm not in _NEEDS:
        raise ValueError(
            f"unknown algorithm {algorithm!r}; known algorithms: {', '.join(algorithms())}"
        )
    return _NEEDS[algorithm]
