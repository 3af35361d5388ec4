"""Every method on one heterogeneous least squares problem: who is exact, and the others' floors."""

import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import networkx as nx

from bluefog_pg.simulate.figures.figure import Curve, Figure, OnStep, Reference
from bluefog_pg.simulate.optimize import optimize
from bluefog_pg.simulate.problems import LeastSquares, least_squares
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import (
    Schedule,
    ceca,
    exponential,
    mesh2d,
    metropolis_hastings,
    one_peer_exponential,
    ring,
)

GRADIENT = "gradient descent, lr 0.05"
EXACT = "exact methods, lr 0.05"
MOMENTUM = "momentum 0.9, lr 0.005"


@dataclass(frozen=True)
class Setting:
    """One line of the table: a method, where it runs, and its known errors by iteration."""

    panel: str
    method: str
    topology: str
    known: dict[int, float]
    lr: float = 0.05
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.method}, {self.topology}"


_plain = partial(Setting, GRADIENT)
_exact = partial(Setting, EXACT)
_momentum = partial(Setting, MOMENTUM, topology="ring", lr=0.005, options={"momentum": 0.9})

SETTINGS = (
    _plain("awc", "ring", {100: 0.23, 2000: 0.23}),
    _plain("atc", "ring", {2000: 0.21}),
    _plain("atc", "static exp.", {2000: 0.036}),
    _plain("atc", "one-peer exp.", {2000: 0.075}),
    _plain("dsgd_ceca", "CECA-2P", {2000: 0.075}),
    _plain("push_sum", "random digraph", {2000: 0.056}),
    _exact("extra", "ring", {100: 9.0e-3, 500: 5e-9, 1000: 1e-12, 2000: 2e-12}),
    _exact("exact_diffusion", "ring", {100: 9.0e-3, 500: 5e-9, 1000: 1e-12, 2000: 2e-12}),
    _exact("d2", "ring", {100: 9.0e-3, 500: 2.7e-8, 1000: 9.1e-13, 2000: 5.8e-13}),
    _exact("gradient_tracking", "ring", {100: 2.7e-2, 500: 8.9e-6, 1000: 5.4e-10, 2000: 1.8e-15}),
    _exact("gradient_tracking", "one-peer exp.", {100: 9.1e-3, 500: 4.5e-10, 2000: 1.2e-15}),
    _exact("diging", "ring", {}),
    _exact("push_diging", "random digraph", {100: 9.1e-3, 500: 4.5e-10, 2000: 2.1e-15}),
    _exact("push_pull", "random digraph", {100: 8.5e-3, 500: 3.2e-10, 2000: 1.5e-15}),
    _exact("relay_sgd", "chain", {2000: 1.0e-7}),
    _exact("relay_sgd", "binary tree", {2000: 2.6e-11}),
    _momentum("dmsgd", known={2000: 0.21}),
    _momentum("dmsgd_mixed", known={2000: 0.17}),
    _momentum("decentlam", known={2000: 0.037}),
    _momentum("qg_dsgdm", known={2000: 0.037}),
    _momentum("momentum_tracking", known={2000: 1.7e-15}),
)

TOPOLOGIES = {
    "ring": ring,
    "static exp.": exponential,
    "one-peer exp.": one_peer_exponential,
    "CECA-2P": ceca,
    "chain": lambda n: mesh2d(n, shape=(1, n)),
    "binary tree": lambda n: metropolis_hastings(nx.full_rary_tree(2, n)),
    "random digraph": lambda n: random_digraph(n),
}


def methods_figure(n: int = 16, steps: int = 2000, runs: int = 1) -> Figure:
    """Methods on least squares whose ranks disagree: d = 10, 60 rows a rank, lr .05."""
    problem = least_squares(n, dim=10, rows=60, heterogeneity=1, noise=0.1)
    references = [
        Reference(s.label, step, value) for s in SETTINGS for step, value in s.known.items()
    ]
    return Figure(
        title=f"Methods on heterogeneous least squares, {n} ranks",
        ylabel="relative error",
        source="own earlier computation on the same problem, but another random digraph; "
        "below 1e-11 there is only rounding",
        steps=steps,
        runs=runs,
        curves=[
            Curve(s.label, partial(_trace, problem, TOPOLOGIES[s.topology](n), s, steps), s.panel)
            for s in SETTINGS
        ],
        references=references if n == 16 else [],
    )


def random_digraph(n: int, extra: int = 3, seed: int = 0) -> nx.DiGraph:
    """A one-way ring and about `extra` random out-edges more per rank, without weights."""
    draw = random.Random(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    for i in range(n):
        others = [(i + 1) % n, *draw.sample(range(n), min(extra, n))]
        graph.add_edges_from((i, j) for j in others if j != i)
    return graph


def _trace(
    problem: LeastSquares,
    topology: nx.DiGraph | Schedule,
    setting: Setting,
    steps: int,
    seed: int,
    on_step: OnStep,
) -> Array:
    return optimize(
        setting.method, problem, topology, steps, setting.lr,
        seed=seed, on_step=on_step, **setting.options,
    )  # fmt: skip
