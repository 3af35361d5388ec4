"""Decentralized SGD on least squares, as in EquiTopo (2210.07881) and DSGD-CECA (2306.00256).

Both have 50 rows a rank, f_i = ||A_i x - b_i||^2 / 2 with standard normal A_i (a sum, not a mean),
the same x behind all b_i, and normal noise on every gradient. The error is
||X - 1 x*^T||_F / ||1 x*^T||_F.
"""

from collections.abc import Callable, Mapping
from functools import partial

import networkx as nx

from bluefog_pg.simulate.figures.figure import Curve, Figure, OnStep, Reference
from bluefog_pg.simulate.optimize import optimize
from bluefog_pg.simulate.problems import least_squares
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology import (
    CecaSchedule,
    Schedule,
    ceca,
    consensus_rate,
    equi_dyn,
    equi_static,
    exponential,
    fully_connected,
    ring,
)

Make = Callable[[int], nx.DiGraph | Schedule]
"""Takes the seed."""


def ceca_least_squares(n: int = 258, steps: int = 1000, runs: int = 5) -> Figure:
    """DSGD with noise 5 on CECA, EquiDyn and ring; lr .02, divided by 1.5 every 20 iterations."""
    fixed = {
        "ring": ring(n),
        "CECA-1P": ceca(n, variant=1),
        "CECA-2P": ceca(n, variant=2),
        "centralized": fully_connected(n),
    }
    topologies = _always(fixed) | {"OD-EquiDyn": lambda seed: equi_dyn(n, seed=seed)}
    known = {"ring": 1.9e-3, "OD-EquiDyn": 1e-3, "CECA-1P": 6e-4, "CECA-2P": 4.5e-4}
    return Figure(
        title=f"DSGD on least squares, {n} ranks, gradient noise 5",
        ylabel="relative error",
        source="read by eye from the figure of arXiv 2306.00256. Its data is not known; ||x*|| "
        "scales all values alike",
        steps=steps,
        runs=runs,
        curves=_curves(topologies, n, steps, sigma=5.0, lr=_decay(0.02, 1.5, every=20)),
        references=[Reference(k, 1000, v) for k, v in known.items()] if n == 258 else [],
    )


def equitopo_least_squares(n: int = 300, steps: int = 100, runs: int = 10) -> Figure:
    """DSGD with noise 1 on static graphs; lr .037, divided by 1.4 every 40."""
    graphs = {
        "static exponential": exponential(n),
        "U-EquiStatic": equi_static(n, directed=False),
        "D-EquiStatic": equi_static(n),
        "centralized": fully_connected(n),
    }
    rated = {f"{name}, rate {consensus_rate(graph):.2f}": graph for name, graph in graphs.items()}
    return Figure(
        title=f"DSGD on least squares, {n} ranks, gradient noise 1",
        ylabel="relative error",
        source="set-up of arXiv 2210.07881, n = 300; its legend has the rates .80 "
        "(exponential), .63 (U) and .71 (D); no values are known of its curves",
        steps=steps,
        runs=runs,
        curves=_curves(_always(rated), n, steps, sigma=1.0, lr=_decay(0.037, 1.4, every=40)),
    )


def _always(fixed: Mapping[str, nx.DiGraph | Schedule]) -> dict[str, Make]:
    return {label: lambda seed, it=it: it for label, it in fixed.items()}


def _decay(lr: float, factor: float, every: int) -> Callable[[int], float]:
    return lambda step: lr / factor ** ((step + 1) // every)


def _curves(
    topologies: Mapping[str, Make], n: int, steps: int, sigma: float, lr: Callable[[int], float]
) -> list[Curve]:
    problem = least_squares(n, dim=10, rows=50, heterogeneity=0, noise=0.1, scale=1)

    def trace(make: Make, seed: int, on_step: OnStep) -> Array:
        topology = make(seed)
        method = "dsgd_ceca" if isinstance(topology, CecaSchedule) else "atc"
        return optimize(
            method, problem, topology, steps, lr, sigma=sigma, seed=seed, on_step=on_step
        )

    return [Curve(label, partial(trace, make)) for label, make in topologies.items()]
