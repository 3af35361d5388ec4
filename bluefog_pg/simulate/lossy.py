"""Averaging over links that lose messages."""

from dataclasses import dataclass
from itertools import islice

import networkx as nx
import numpy as np
from numpy.random import PCG64, Generator

from bluefog_pg.simulate.repair import RULES, Messages, Rule
from bluefog_pg.simulate.rounds import Array, EachRound, size_of
from bluefog_pg.topology import Schedule
from bluefog_pg.topology.arguments import check_int
from bluefog_pg.topology.mixing import sparse_mixing_matrix


@dataclass(frozen=True)
class LossyRun:
    """What `average_with_loss` saw.

    errors: ||x_t - mean(x_0)||_2 over the ranks for t = 0..steps.
    drift: |mean(x_t) - mean(x_0)|, relative to the root mean square of x_0.
    sent, lost: number of messages.
    """

    errors: Array
    drift: Array
    sent: int
    lost: int


def average_with_loss(
    topology: nx.DiGraph | Schedule, rule: str | Rule, loss: float, steps: int, seed: int = 0
) -> LossyRun:
    """Averages standard normal x_0 over links that lose each message with probability `loss`.

    Args:
        topology: its weights must be doubly stochastic.
        rule: a name in `RULES`, or such a function.
        loss: 0..1.
        steps: number of rounds.
        seed: of x_0 and of the losses; in a round, the same messages are lost for every rule.

    Raises:
        ValueError: an unknown rule, a loss outside 0..1, negative steps, a topology that is not
            doubly stochastic, or for mutual_drop not symmetric.
    """
    steps = check_int("steps", steps, 0)
    if not 0 <= loss <= 1:
        raise ValueError(f"loss must be a probability in 0..1, got {loss}")
    if isinstance(rule, str) and rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known rules: {', '.join(RULES)}")
    messages, random = EachRound(topology, _messages), Generator(PCG64(seed))
    x = random.standard_normal(size_of(topology))
    rounds = [(r, random.random(len(r.src)) >= loss) for r in map(messages, range(steps))]
    run = RULES[rule] if isinstance(rule, str) else rule
    states = np.array([x, *islice(run(x, iter(rounds)), steps)])
    return LossyRun(
        errors=np.linalg.norm(states - x.mean(), axis=1),
        drift=np.abs(states.mean(axis=1) - x.mean()) / np.sqrt((x * x).mean()),
        sent=sum(len(arrived) for _, arrived in rounds),
        lost=sum(int((~arrived).sum()) for _, arrived in rounds),
    )


def _messages(graph: nx.DiGraph) -> Messages:
    w = sparse_mixing_matrix(graph).tocoo()
    for at, name in ((w.row, "row"), (w.col, "column")):
        sums = np.bincount(at, w.data, minlength=len(graph))
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > 1e-10:
            raise ValueError(
                f"the weights must be doubly stochastic, {name} {worst} of W sums to "
                f"{sums[worst]:.6g}"
            )
    between = w.row != w.col
    src, dst = (at[between].astype(np.int64) for at in (w.col, w.row))
    order = np.lexsort((src, dst))
    return Messages(w.diagonal(), src[order], dst[order], w.data[between][order])
