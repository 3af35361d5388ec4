"""Schedules whose partners are drawn anew in every round.

EquiDyn: Song, Li, Jin, Shi, Yan, Yin and Yuan, "Communication-Efficient Topologies for
Decentralized Learning with O(1) Consensus Rate", NeurIPS 2022 (arXiv 2210.07881).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Real

import networkx as nx

from ..arguments import check_int, check_seed
from ..build import check_size
from ..draws import random_order, random_words
from ..registry import register
from ..schedule import Schedule
from .peer_rounds import one_peer


@register
def equi_dyn(
    n: int,
    directed: bool = True,
    seed: int = 0,
    eta: float | None = None,
    shifts: Iterable[int] | None = None,
) -> Schedule:
    """OD-EquiDyn, or OU-EquiDyn with directed=False: one random shift s for all ranks per step.

    W = (1 - eta) I + eta A, where A = I/n + (n-1)/n P_s. Directed, P_s receives from rank i - s.
    Undirected, P_s is a matching: from a random rank on, each rank i that is still free is paired
    with i + s if that is free too; ranks left over keep their value. One message per rank and step,
    and a consensus rate that does not depend on n: with all n - 1 shifts the mean of
    ||Wx - mean||^2 / ||x - mean||^2 is (1 - 1/n)/2 directed at eta = 1/2, and 0.52 to
    0.56 undirected for n >= 16. Never repeats.

    Args:
        n: number of ranks.
        directed: OD-EquiDyn, or else OU-EquiDyn, whose W is symmetric.
        seed: of the draws.
        eta: in (0, 1]. Default: n / (2(n-1)), which makes all weights 1/2 and is the best for the
            directed kind: the factor is then (n-2)/(2(n-1)). The paper's theory has eta = 1/2 and
            its training runs 0.53 at n = 17, which is this default.
        shifts: what s is drawn from, uniformly; a shift that occurs twice is drawn twice as often.
            Default: 1..n-1.

    Raises:
        ValueError: n below 1, a seed below 0, eta outside (0, 1], no shifts, or one that is not in
            1..n-1.
        TypeError: eta is not a real number, or a shift is not an int.
    """
    n, seed = check_size(n), check_seed(seed)
    received = 0.5 if eta is None else _check_eta(eta) * (n - 1) / n
    candidates = range(1, n) if shifts is None else _check_shifts(n, shifts)
    make = _shift_round if directed else _matching_round
    name = "equi_dyn" if directed else "equi_dyn undirected"
    return Schedule(partial(make, n, candidates, (1 - received, received), seed), size=n, name=name)


@register
def random_matching(n: int, seed: int = 0) -> Schedule:
    """In every step each rank exchanges with a random other one, all weights 1/2.

    The pairs are a matching drawn uniformly from all perfect ones, or for odd n from those that
    leave one rank out. Symmetric; never repeats. The mean of ||Wx - mean||^2 / ||x - mean||^2 is
    (n-2)/(2(n-1)) for even n, and 1/2 for odd n > 1.

    Raises:
        ValueError: n below 1, or a seed below 0.
    """
    n, seed = check_size(n), check_seed(seed)
    return Schedule(partial(_random_pairs, n, seed), size=n, name="random_matching")


def _shift_round(
    n: int, shifts: Sequence[int], weights: tuple[float, float], seed: int, step: int
) -> nx.DiGraph:
    shift, _ = _draw(n, shifts, seed, step)
    return one_peer([(i + shift) % n for i in range(n)], weights)


def _matching_round(
    n: int, shifts: Sequence[int], weights: tuple[float, float], seed: int, step: int
) -> nx.DiGraph:
    shift, start = _draw(n, shifts, seed, step)
    partner = list(range(n))
    for place in range(start, start + n):
        i, j = place % n, (place + shift) % n
        if partner[i] == i and partner[j] == j:
            partner[i], partner[j] = j, i
    return one_peer(partner, weights)


def _draw(n: int, shifts: Sequence[int], seed: int, step: int) -> tuple[int, int]:
    """The shift of `step` (0 for a lone rank, which has none) and a rank to start from."""
    first, second = map(int, random_words(seed, step, 2))
    return shifts[first % len(shifts)] if shifts else 0, second % n


def _random_pairs(n: int, seed: int, step: int) -> nx.DiGraph:
    order = random_order(n, seed, step)
    partner = list(range(n))
    for i, j in zip(order[::2], order[1::2], strict=False):
        partner[i], partner[j] = j, i
    return one_peer(partner)


def _check_eta(eta: float) -> float:
    if not isinstance(eta, Real):
        raise TypeError(f"eta must be a real number, not {eta!r}")
    if not 0 < eta <= 1:  # NaN too
        raise ValueError(f"eta must be in (0, 1], got {eta}")
    return float(eta)


def _check_shifts(n: int, shifts: Iterable[int]) -> tuple[int, ...]:
    checked = tuple(check_int("a shift", shift, 1) for shift in shifts)
    if not checked:
        raise ValueError("shifts must not be empty; the default is all of 1..n-1")
    if max(checked) >= n:
        raise ValueError(f"a shift must be in 1..{n - 1}, got {max(checked)}")
    return checked
