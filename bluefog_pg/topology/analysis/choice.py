"""Which topology to use: the one that predicts the least time to agree."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..arguments import check_int
from ..build import SizeError, check_size
from ..dynamic.ceca import CecaSchedule
from ..registry import get, register
from ..schedule import Schedule
from .analyze import convergence
from .cost import MESSAGE_BYTES, Links, allreduce_seconds, hosts_of, largest_degree, round_seconds
from .facts import Facts
from .safety import refusal
from .units import bytes_text, seconds_text

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TARGET = 1e-3
"""Topologies are compared by the time that brings any disagreement down to this part of it."""

_TIE = 0.01

_RANDOM_FROM = 512
"""Below, base_graph takes at most 2 log2 n + 2 < 20 steps, and 1/sqrt(2) per step takes 20."""


@dataclass(frozen=True)
class Candidate:
    """A topology that was considered, and what is predicted for it."""

    name: str
    """Its registered name."""
    arguments: dict[str, Any]
    """What its constructor takes besides n."""
    steps: int
    """Steps to the exact average, or else to a thousandth of the disagreement at worst."""
    exact: bool
    """Whether that is the exact average."""
    degree: int
    """The most messages that a rank sends or receives in a step."""
    seconds_per_step: float
    """Predicted, in the mean over the rounds; see `cost`."""
    seconds: float
    """steps * seconds_per_step: what candidates are ranked by."""

    def __str__(self) -> str:
        return _label(self.name, self.arguments)


@dataclass(frozen=True)
class Choice:
    """What `choose` returns."""

    topology: nx.DiGraph | Schedule
    """The topology that was chosen."""
    explanation: str
    """One paragraph: why this one, in numbers, and what came next."""
    candidates: tuple[Candidate, ...]
    """All that were ranked; the first is the one chosen."""
    left_out: dict[str, str]
    """The others, each with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the topology, fit for JSON; the first candidate says how to make it."""
        return {
            "explanation": self.explanation,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "left_out": self.left_out,
        }


def choose(
    n: int,
    *,
    ranks_per_host: int | None = None,
    links: Links | None = None,
    message_bytes: int = MESSAGE_BYTES,
    max_degree: int = 2,
    symmetric: bool = False,
    extra_copy: bool = False,
    algorithm: str | None = None,
) -> Choice:
    """Chooses the topology by which n ranks agree in the least predicted time.

    A pure function of its arguments: ranks that bring the same ones make the same choice. Where
    times differ by less than 1 %, exact ones come first, then the one with the cheaper step, then
    the simpler one.

    Args:
        n: number of ranks.
        ranks_per_host: how many consecutive ranks share a host. Default: as `links.hosts` says;
            without that every rank is its own host.
        links: latency and bandwidth inside a host and between hosts, measured by
            `bluefog_pg.probe_links` or assumed; default: `Links()`.
        message_bytes: size of the model.
        max_degree: the most messages that a rank may send in one step. 2 is what a ring all-reduce
            sends, so that a step is never dearer than one.
        symmetric: only rounds in which whoever sends to a rank also receives from it, with equal
            weights.
        extra_copy: allow CECA, which keeps a second copy of the model and needs an algorithm that
            knows of it. With False the result is good for `neighbor_allreduce` as it is.
        algorithm: only topologies that `require_safe` allows for it.

    Raises:
        ValueError: n, ranks_per_host or max_degree below 1, an unknown algorithm, links that were
            measured with another n, or nothing that fits: the message says why each was left out.
    """
    n, links = check_size(n), links or Links()
    wish = _Wish(check_int("max_degree", max_degree, 1), symmetric, extra_copy, algorithm)
    hosts = hosts_of(n, links, ranks_per_host)
    seconds_of = partial(round_seconds, nbytes=message_bytes, links=links, hosts=hosts)
    ranked: list[tuple[Candidate, nx.DiGraph | Schedule]] = []
    left_out: dict[str, str] = {}
    for name, arguments in _considered(n, hosts, max_degree):
        try:
            topology = get(name)(n, **arguments)
            facts = Facts(topology)
            wish.check(facts)
            ranked.append((_predict(name, arguments, facts, seconds_of), topology))
        except (SizeError, _Unfit) as reason:
            left_out[_label(name, arguments)] = str(reason)
    if not ranked:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in left_out.items())
        raise ValueError(f"no topology for n={n} fits: {reasons}")
    ranked = _best_first(ranked)
    candidates = tuple(candidate for candidate, _ in ranked)
    allreduce = allreduce_seconds(message_bytes, links, hosts.tolist())
    return Choice(
        topology=ranked[0][1],
        explanation=_explain(n, hosts, message_bytes, candidates, allreduce),
        candidates=candidates,
        left_out=left_out,
    )


@register
def auto(n: int, **options: Any) -> nx.DiGraph | Schedule:
    """The topology that `choose` chooses for n ranks; it takes the same keyword arguments.

    Raises:
        ValueError: n below 1, or nothing fits the options.
    """
    return choose(n, **options).topology


def _considered(
    n: int, hosts: npt.NDArray[np.int64], max_degree: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Registered names with arguments; of equally good ones the first is taken."""
    yield "one_peer_exponential", {}
    yield "one_peer_hypercube", {}
    yield "hyper_cuboid", {}
    yield "ceca", {}
    yield from (("base_graph", {"k": k}) for k in range(1, min(max_degree, 4) + 1))
    yield "ring", {}
    yield "hypercube", {}
    yield "torus2d", {}
    yield "symmetric_exponential", {}
    yield "exponential", {}
    if n - 1 <= max_degree:  # else it is costly to make, only to be left out
        yield "fully_connected", {}
    local = int(np.count_nonzero(hosts == hosts[0]))
    if 2 < local < n and n % local == 0 and np.array_equal(hosts, np.arange(n) // local):
        yield "inner_outer_exponential", {"ranks_per_host": local}
        yield "inner_outer_ring", {"ranks_per_host": local}
    if n >= _RANDOM_FROM:
        yield "equi_dyn", {}


class _Unfit(ValueError):
    """A topology is left out; the message says why."""


@dataclass(frozen=True)
class _Wish:
    """What `choose` was asked for."""

    max_degree: int
    symmetric: bool
    extra_copy: bool
    algorithm: str | None

    def check(self, facts: Facts) -> None:
        """Raises _Unfit for a topology that is not it."""
        degree = largest_degree(facts.matrices)
        if isinstance(facts.topology, CecaSchedule) and not self.extra_copy:
            raise _Unfit("keeps a second copy of the model (extra_copy=True allows it)")
        if degree > self.max_degree:
            raise _Unfit(f"sends {degree} messages a step, above max_degree={self.max_degree}")
        if self.symmetric and facts.asymmetry:
            raise _Unfit(facts.asymmetry)
        if self.algorithm and (reason := refusal(self.algorithm, facts)):
            raise _Unfit(reason)


def _predict(
    name: str,
    arguments: dict[str, Any],
    facts: Facts,
    seconds_of: Callable[["csr_array"], float],
) -> Candidate:
    """Raises _Unfit where some disagreement never shrinks."""
    from .spectral import mean_square_rate

    if facts.period is None:  # how its 64 rounds go together is luck
        rate, exact_after = mean_square_rate(facts.matrices), None
    else:
        _, rate, exact_after = convergence(facts)
    exact = exact_after is not None
    if not exact and rate >= 1:
        raise _Unfit("does not bring all ranks together")
    steps = exact_after if exact else math.ceil(math.log(TARGET) / math.log(rate))
    degree = largest_degree(facts.matrices)
    per_step = math.fsum(map(seconds_of, facts.matrices)) / len(facts.matrices)
    return Candidate(name, arguments, steps, exact, degree, per_step, steps * per_step)


def _label(name: str, arguments: dict[str, Any]) -> str:
    listed = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return f"{name}({listed})" if listed else name


def _best_first(ranked: list[tuple[Candidate, Any]]) -> list[tuple[Candidate, Any]]:
    """By time; those that tie with the best by exactness, by their step, and as they came in."""
    bound = min(candidate.seconds for candidate, _ in ranked) * (1 + _TIE)

    def key(entry: tuple[Candidate, Any]) -> tuple[float, ...]:
        candidate, _ = entry
        if candidate.seconds > bound:
            return 1, candidate.seconds
        return 0, not candidate.exact, candidate.seconds_per_step

    return sorted(ranked, key=key)


def _explain(
    n: int,
    hosts: npt.NDArray[np.int64],
    message_bytes: int,
    candidates: tuple[Candidate, ...],
    allreduce: float,
) -> str:
    best, *others = candidates
    count = len(set(hosts.tolist()))
    where = "one host" if count == 1 else f"{count} hosts"
    degree = f"{best.degree} message{'' if best.degree == 1 else 's'}"
    text = (
        f"{best} for {n} rank{'' if n == 1 else 's'} on {where} and messages of "
        f"{bytes_text(message_bytes)}: {_goal(best)}, with at most {degree} per rank and step; "
        f"a step is predicted to take {seconds_text(best.seconds_per_step)}, together "
        f"{seconds_text(best.seconds)} (a ring all-reduce, exact, {seconds_text(allreduce)})."
    )
    if others:
        text += " Next best: " + "; ".join(
            f"{other}, {_goal(other)}, {seconds_text(other.seconds)}" for other in others[:3]
        )
        text += "."
    return text


def _goal(candidate: Candidate) -> str:
    steps = f"{candidate.steps} step{'' if candidate.steps == 1 else 's'}"
    if candidate.exact:
        return f"the exact average in {steps}"
    return f"a thousandth of the disagreement in {steps}"
