"""Consensus error over rounds, as in the figures of EquiTopo (2210.07881) and CECA (2306.00256)."""

from collections.abc import Callable
from functools import partial

import networkx as nx

from bluefog_pg.simulate.consensus import consensus
from bluefog_pg.simulate.figures.figure import Curve, Figure, OnStep, Reference
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import (
    Schedule,
    base_graph,
    ceca,
    equi_dyn,
    exponential,
    one_peer_exponential,
    ring,
)
from bluefog_pg.topology.build import check_size

TOPOLOGIES: dict[str, Callable[[int, int], nx.DiGraph | Schedule]] = {
    "ring": lambda n, seed: ring(n),
    "static exponential": lambda n, seed: exponential(n),
    "one-peer exponential": lambda n, seed: one_peer_exponential(n),
    "OU-EquiDyn": lambda n, seed: equi_dyn(n, directed=False, seed=seed),
    "OD-EquiDyn": lambda n, seed: equi_dyn(n, seed=seed),
    "Base-2": lambda n, seed: base_graph(n, 1),
    "CECA-2P": lambda n, seed: ceca(n),
}

REFERENCES: dict[int, dict[str, dict[int | None, float]]] = {
    300: {
        "ring": {130: 2.5},
        "static exponential": {40: 1.6e-4, 130: 3.1e-13},
        "one-peer exponential": {40: 5.4e-4, 130: 2.8e-12},
        "OU-EquiDyn": {40: 9.5e-5, 104: 8.5e-13},
        "OD-EquiDyn": {40: 6.4e-6, 78: 1.6e-14},
        "Base-2": {None: 15},
        "CECA-2P": {None: 9},
    },
    130: {
        "ring": {40: 2.2},
        "static exponential": {40: 4.1e-5},
        "one-peer exponential": {40: 3.2e-9},
        "OU-EquiDyn": {40: 6.4e-5},
        "OD-EquiDyn": {40: 4e-7},
        "Base-2": {None: 14},
        "CECA-2P": {None: 8},
    },
    64: {"one-peer exponential": {None: 6}},
    17: {"Base-2": {None: 9}, "CECA-2P": {None: 5}},
}
"""n -> topology -> step (None: the first exact one) -> ||x_t - mean||_2, x_0 ~ N(0, I), 5 seeds."""


def consensus_figure(n: int = 300, steps: int = 130, runs: int = 5) -> Figure:
    """The consensus error of a ring and of exponential, EquiDyn, Base-2 and CECA graphs."""
    n = check_size(n)
    references = [
        Reference(label, step, value)
        for label, known in REFERENCES.get(n, {}).items()
        for step, value in known.items()
    ]
    return Figure(
        title=f"Consensus of {n} ranks",
        ylabel=r"$\|x_t - \bar{x}\|_2$",
        source="own earlier computation, means over 5 seeds; the papers' notebooks plot sqrt(n) "
        "times as much. OD-EquiDyn's mean is that of its worst run: it spreads over decades",
        steps=steps,
        runs=runs,
        curves=[Curve(label, partial(_trace, n, steps, label)) for label in TOPOLOGIES],
        references=references,
    )


def _trace(n: int, steps: int, label: str, seed: int, on_step: OnStep) -> Array:
    return consensus(TOPOLOGIES[label](n, seed), steps, seed=seed, on_step=on_step)
