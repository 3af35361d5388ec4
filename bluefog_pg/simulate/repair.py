"""Rules by which ranks make up for lost messages.

A rule is a generator function ``rule(x, rounds)`` as methods are: x has shape (n,), `rounds` gives
a `Round` for each step, and it yields what each rank takes for the average after it. The weights
are doubly stochastic, so without loss every rule keeps the mean and all of them do the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bluefog_pg.simulate.rounds import Array

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Messages:
    """Each rank's self weight, shape (n,), and a round's E messages, one array entry each.

    Messages are in ascending order of (dst, src).
    """

    own: Array
    src: Indices
    dst: Indices
    weight: Array

    def gather(self, values: Array) -> Array:
        """Returns for each rank the sum of the values of the messages to it."""
        return np.bincount(self.dst, values, minlength=len(self.own))


Round = tuple[Messages, npt.NDArray[np.bool_]]
"""The messages, and which of them arrived."""

Rule = Callable[[Array, Iterable[Round]], Iterator[Array]]


def renormalize(x: Array, rounds: Iterable[Round]) -> Iterator[Array]:
    """The receiver divides by the sum of the weights that it has. The mean drifts."""
    for r, arrived in rounds:
        weight = r.weight * arrived
        total = r.own + r.gather(weight)
        average = (r.own * x + r.gather(weight * x[r.src])) / np.where(total > 0, total, 1)
        x = np.where(total > 0, average, x)
        yield x


def missing_to_self(x: Array, rounds: Iterable[Round]) -> Iterator[Array]:
    """The receiver gives the weight of a missing message to itself. The mean drifts."""
    for r, arrived in rounds:
        x = _missing_to_self(x, r, arrived)
        yield x


def mutual_drop(x: Array, rounds: Iterable[Round]) -> Iterator[Array]:
    """Both ends of an edge give its weight to themselves if either message is lost.

    The weights stay symmetric, so the mean is kept; it takes an acknowledgement for the two ends to
    agree, which is taken as given here.

    Raises:
        ValueError: a round's weights are not symmetric.
    """
    for r, arrived in rounds:
        x = _missing_to_self(x, r, arrived & arrived[_reverse(r)])
        yield x


def push_sum(x: Array, rounds: Iterable[Round]) -> Iterator[Array]:
    """Push-sum: x and a weight v travel together, x / v is the average. What is lost is lost."""
    v = np.ones_like(x)
    for r, arrived in rounds:
        weight = r.weight * arrived
        x, v = (r.own * m + r.gather(weight * m[r.src]) for m in (x, v))
        yield x / v


def running_sums(x: Array, rounds: Iterable[Round]) -> Iterator[Array]:
    """Push-sum that sends per edge the sum of all that was ever sent over it.

    The receiver adds what is more than it saw last, so the next message makes up for a lost one and
    nothing needs to be agreed on. Part of x and v is on its way after a loss; their ratio still
    converges to the exact mean.
    """
    mass = np.array([x, np.ones_like(x)])  # x and v
    place: dict[int, int] = {}  # edge -> its column in `sent` and `seen`
    sent = seen = np.zeros((2, 0))
    for r, arrived in rounds:
        keys = (r.src * len(x) + r.dst).tolist()
        at = np.array([place.setdefault(key, len(place)) for key in keys], dtype=int)
        grown = np.zeros((2, len(place) - sent.shape[1]))
        sent, seen = np.hstack([sent, grown]), np.hstack([seen, grown])
        sent[:, at] += r.weight * mass[:, r.src]
        news = (sent - seen)[:, at] * arrived
        seen[:, at[arrived]] = sent[:, at[arrived]]
        mass = r.own * mass + [r.gather(row) for row in news]
        yield mass[0] / mass[1]


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (renormalize, missing_to_self, mutual_drop, push_sum, running_sums)
}
"""What receivers do about messages that are lost, by name."""


def _missing_to_self(x: Array, r: Messages, arrived: npt.NDArray[np.bool_]) -> Array:
    weight = r.weight * arrived
    return (r.own + r.gather(r.weight - weight)) * x + r.gather(weight * x[r.src])


def _reverse(r: Messages) -> Indices:
    """For each message the place of the one that goes the other way."""
    n = len(r.own)
    keys = r.dst * n + r.src  # ascending
    at = np.searchsorted(keys, r.src * n + r.dst).clip(max=len(keys) - 1)
    wrong = np.flatnonzero((keys[at] != r.src * n + r.dst) | (r.weight[at] != r.weight))
    if len(wrong):
        j, i = r.src[wrong[0]], r.dst[wrong[0]]
        raise ValueError(f"mutual_drop needs symmetric weights; ({j}, {i}) and ({i}, {j}) differ")
    return at
