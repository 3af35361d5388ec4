"""Decentralized averaging and optimization on thousands of virtual ranks, in one process.

The topologies are the same objects that a process group runs: an ``nx.DiGraph`` or a `Schedule`.
Values are numpy arrays with one row per rank, so a round is one product with a sparse matrix.

    consensus(topology, steps)                     how fast a topology averages
    optimize(method, problem, topology, steps, lr) how a method converges on it
    average_with_loss(topology, rule, loss, steps) what lost messages do to an average

`methods` has the optimization methods, and ``bluefog_pg.simulate.figures`` the figures of the
papers, which ``bluefog-pg simulate`` draws. All results are a function of the arguments alone.
"""

from . import methods
from .consensus import averages, consensus
from .lossy import LossyRun, average_with_loss
from .optimize import iterates, optimize
from .problems import LeastSquares, Logistic, Problem, least_squares, logistic, noisy
from .repair import RULES

__all__ = [
    "RULES",
    "LeastSquares",
    "Logistic",
    "LossyRun",
    "Problem",
    "average_with_loss",
    "averages",
    "consensus",
    "iterates",
    "least_squares",
    "logistic",
    "methods",
    "noisy",
    "optimize",
]
