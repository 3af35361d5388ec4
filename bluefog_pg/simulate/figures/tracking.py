"""Gradient tracking on a problem that is not convex, as in EquiTopo (2210.07881)."""

from functools import partial

from bluefog_pg.simulate.figures.figure import Curve, Figure, OnStep
from bluefog_pg.simulate.optimize import optimize
from bluefog_pg.simulate.problems import Logistic, logistic
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import equi_dyn, one_peer_exponential

TOPOLOGIES = {
    "one-peer exponential": (lambda n, seed: one_peer_exponential(n), 1.6),
    "OU-EquiDyn": (lambda n, seed: equi_dyn(n, directed=False, seed=seed), 3.0),
    "OD-EquiDyn": (lambda n, seed: equi_dyn(n, seed=seed), 3.0),
}
"""Label -> constructor of (n, seed), learning rate."""


def gradient_tracking(n: int = 300, steps: int = 300, runs: int = 1) -> Figure:
    """Gradient tracking on logistic regression with a non-convex penalty, gradient noise 1e-6."""
    problem = logistic(n, dim=10, samples=1000, heterogeneity=0.2, regularization=0.001)
    return Figure(
        title=f"Gradient tracking on non-convex logistic regression, {n} ranks",
        ylabel=r"$\|\nabla f(\bar{x})\|_2$",
        source="set-up of arXiv 2210.07881; no values are known of its figure",
        steps=steps,
        runs=runs,
        curves=[
            Curve(f"{label}, lr {lr}", partial(_trace, problem, label, steps))
            for label, (_, lr) in TOPOLOGIES.items()
        ],
    )


def _trace(problem: Logistic, label: str, steps: int, seed: int, on_step: OnStep) -> Array:
    make, lr = TOPOLOGIES[label]
    return optimize(
        "gradient_tracking", problem, make(problem.n, seed), steps, lr,
        sigma=1e-6, seed=seed, on_step=on_step,
    )  # fmt: skip
