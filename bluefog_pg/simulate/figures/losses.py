"""Averaging while messages get lost: which rules keep the mean."""

from functools import partial

import networkx as nx

from bluefog_pg.simulate.figures.figure import Curve, Figure, OnStep, Reference
from bluefog_pg.simulate.lossy import average_with_loss
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import Schedule, exponential, one_peer_exponential, one_peer_hypercube

TOPOLOGIES = {
    "static exponential": exponential,
    "one-peer exponential": one_peer_exponential,
    "one-peer hypercube": one_peer_hypercube,
}

KNOWN = {
    "renormalize": (2.1e-2, 3.9e-2, 4.6e-2),
    "missing_to_self": (2.4e-2, 3.9e-2, 4.6e-2),
    "push_sum": (2.0e-2, 3.2e-2, 3.1e-2),
    "running_sums": (1.5e-14, 1.9e-15, 2.1e-15),
    "mutual_drop": (None, None, 1.1e-16),  # needs symmetric weights
}
"""Rule -> drift after 400 rounds at a loss of 5 % on the topologies, in their order."""

ROUNDS, LOSS = 400, 0.05


def lost_messages(n: int = 16, steps: int = ROUNDS, runs: int = 9) -> Figure:
    """Drift of the mean where 5 % of the messages are lost, for five rules of repair."""
    lines = [
        (f"{rule} ({name})", rule, name, drift)
        for rule, drifts in KNOWN.items()
        for name, drift in zip(TOPOLOGIES, drifts, strict=True)
        if drift is not None
    ]
    return Figure(
        title=f"Averaging of {n} ranks, {LOSS:.0%} of the messages lost",
        ylabel="drift of the mean / rms of the start",
        source="own earlier computation, 16 ranks; a drift is random, so only its size compares",
        steps=steps,
        runs=runs,
        curves=[
            Curve(label, partial(_trace, TOPOLOGIES[name](n), rule, steps), name, rule)
            for label, rule, name, _ in lines
        ],
        references=[Reference(line[0], ROUNDS, line[3]) for line in lines] if n == 16 else [],
        spread=False,
        same_lines=True,
    )


def _trace(
    topology: nx.DiGraph | Schedule, rule: str, steps: int, seed: int, on_step: OnStep
) -> Array:
    run = average_with_loss(topology, rule, LOSS, steps, seed)
    for _ in range(steps):
        on_step()
    return run.drift
