"""Everything worth knowing of a topology before one trains with it."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np

from ..dynamic.ceca import CecaSchedule
from ..schedule import UNBOUNDED_ROUNDS, Schedule
from .cost import MESSAGE_BYTES, Links, allreduce_seconds, degrees, hosts_of, round_seconds
from .facts import Facts
from .safety import algorithms, refusal

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class Analysis:
    """What `analyze` found; W is the mixing matrix of a round, J = 11^T / n the exact average."""

    size: int
    """Number of ranks."""
    period: int | None
    """Rounds until it repeats: 1 for a static graph, None if it never does."""
    rounds: int
    """How many rounds were looked at: a period, or 64 of a schedule that never repeats."""
    row_stochastic: bool
    """Whether the weights that each rank applies sum to 1, in every round."""
    column_stochastic: bool
    """Whether the weights given to each rank sum to 1, in every round: the mean is kept."""
    symmetric: bool
    """Whether W is symmetric in every round."""
    strongly_connected: bool
    """Whether each rank hears of each other, over others and within `rounds`."""
    in_degree: int
    """The most ranks that one rank receives from in a round."""
    out_degree: int
    """The most ranks that one rank sends to in a round."""
    residual: float
    """||W_T ... W_1 - J||_2 over the T `rounds`: what is left of the disagreement at worst."""
    rate: float
    """The factor per round that makes this residual; 0 where the average is exact. Where a schedule
    that never repeats has come to the average by luck, `spectral.mean_square_rate`."""
    spectral_gap: float | None
    """1 - ||W - J||_2 of a static graph; None for schedules."""
    exact_after: int | None
    """Rounds from step 0 on that give the exact average; None if no number does."""
    message_bytes: int
    """Size of the model, S."""
    bytes_per_step: float
    """What the busiest rank sends in a step, in the mean over the rounds."""
    allreduce_ratio: float
    """bytes_per_step / (2(n-1)/n S), what each rank sends in a ring all-reduce; 0 for n = 1."""
    seconds_per_step: float
    """Predicted time of a round (see `cost`), in the mean over the rounds."""
    allreduce_seconds: float
    """Predicted time of a ring all-reduce over the same links."""
    safe_for: tuple[str, ...]
    """Algorithms whose needs it meets."""
    refused: dict[str, str]
    """The other algorithms, each with the sentence that says why."""

    @property
    def exact(self) -> bool:
        """Whether the exact average is reached in a finite number of rounds."""
        return self.exact_after is not None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name, fit for JSON."""
        return asdict(self)


def analyze(
    topology: nx.DiGraph | Schedule,
    *,
    message_bytes: int = MESSAGE_BYTES,
    links: Links | None = None,
    ranks_per_host: int | None = None,
) -> Analysis:
    """Returns the properties of a topology and what a step of it costs.

    Of a schedule that never repeats the rounds 0..63 stand for all. Of a `CecaSchedule`, what is
    said of convergence is said of x, with z = x at the start; the rest is of x's row of weights.

    Args:
        topology: an nx.DiGraph on 0..n-1 or a `Schedule`.
        message_bytes: size of the model, S; all of it goes along every edge.
        links: latency and bandwidth of an edge; default: `Links()`.
        ranks_per_host: how many consecutive ranks share a host. Default: as `links.hosts` says;
            without that every rank is its own host.

    Raises:
        TypeError, ValueError: it is not a valid topology, or links and ranks do not fit.
    """
    facts, links = Facts(topology), links or Links()
    hosts = hosts_of(facts.size, links, ranks_per_host)
    n, matrices = facts.size, facts.matrices
    found = convergence(facts)
    incoming, outgoing = zip(*map(degrees, matrices), strict=True)
    sent = float(np.mean([out.max() for out in outgoing])) * message_bytes
    refused = {name: why for name in algorithms() if (why := refusal(name, facts))}
    return Analysis(
        size=n,
        period=facts.period,
        rounds=len(matrices),
        row_stochastic=facts.row_sum is None,
        column_stochastic=facts.column_sum is None,
        symmetric=facts.asymmetry is None,
        strongly_connected=facts.unreachable is None,
        in_degree=int(np.max(incoming)),
        out_degree=int(np.max(outgoing)),
        residual=found.residual,
        rate=found.rate,
        spectral_gap=1 - found.residual if facts.period == 1 else None,
        exact_after=found.exact_after,
        message_bytes=message_bytes,
        bytes_per_step=sent,
        allreduce_ratio=sent / (2 * (n - 1) / n * message_bytes) if n > 1 else 0.0,
        seconds_per_step=float(
            np.mean([round_seconds(w, message_bytes, links, hosts) for w in matrices])
        ),
        allreduce_seconds=allreduce_seconds(message_bytes, links, hosts.tolist()),
        safe_for=tuple(name for name in algorithms() if name not in refused),
        refused=refused,
    )


class Convergence(NamedTuple):
    """The fields of an `Analysis` with these names."""

    residual: float
    rate: float
    exact_after: int | None


def convergence(facts: Facts) -> Convergence:
    """Returns what of an `Analysis` is about convergence."""
    from .spectral import distance_from_average, first_exact, mean_square_rate

    matrices = facts.matrices
    if isinstance(facts.topology, CecaSchedule):
        residual, exact_after = _convergence_of_x(facts.topology)
    else:
        residual = distance_from_average(matrices)
        exact_after = first_exact(matrices, repeat=math.ceil(UNBOUNDED_ROUNDS / len(matrices)))
    if facts.period is None and exact_after and not _recurs(matrices, exact_after):
        return Convergence(residual, mean_square_rate(matrices), None)
    rate = residual ** (1 / len(matrices)) if exact_after is None else 0.0
    return Convergence(residual, rate, exact_after)


def _convergence_of_x(ceca: CecaSchedule) -> tuple[float, int | None]:
    from scipy.sparse import csr_array, eye_array, hstack, vstack

    from .spectral import distance_from_average, first_exact

    # The period on [x; z], with z = x put before it and x alone taken after it.
    joint = [csr_array(ceca.joint_matrix(step)) for step in range(ceca.period)]
    unit = eye_array(ceca.size, format="csr")
    period = [vstack([unit, unit]), *joint, hstack([unit, 0 * unit])]
    return distance_from_average(period), first_exact(period) and len(joint)


def _recurs(matrices: "list[csr_array]", count: int) -> bool:
    """Whether all runs of `count` rounds are exact, and not only the first, by luck of the draw."""
    from .spectral import first_exact

    runs = [matrices[at : at + count] for at in range(0, len(matrices) - count + 1, count)]
    return len(runs) > 1 and all(first_exact(run) is not None for run in runs)
