"""Decentralized optimization methods, one small generator function each (see `registry`).

To add one, write such a function, decorate it with `register` and import it here. They are the
reference for implementations on tensors and process groups, so plain equations come first.
"""

from .ceca import dsgd_ceca
from .correction import d2, exact_diffusion, extra
from .gradient import atc, awc, gossipgrad
from .local import (
    diloco,
    gasloc,
    gradient_allreduce,
    hierarchical_sgd,
    local_sgd,
    noloco,
    post_local_sgd,
    slowmo,
)
from .momentum import decentlam, dmsgd, dmsgd_mixed, qg_dsgdm
from .push import column_stochastic, push_diging, push_pull, push_sum, row_stochastic
from .registry import Gradient, Method, Rounds, get, names, register
from .relay import relay_sgd
from .tracking import diging, gradient_tracking, momentum_tracking, semi_atc_tracking

__all__ = [
    "Gradient",
    "Method",
    "Rounds",
    "atc",
    "awc",
    "column_stochastic",
    "d2",
    "decentlam",
    "diging",
    "diloco",
    "dmsgd",
    "dmsgd_mixed",
    "dsgd_ceca",
    "exact_diffusion",
    "extra",
    "gasloc",
    "get",
    "gossipgrad",
    "gradient_allreduce",
    "gradient_tracking",
    "hierarchical_sgd",
    "local_sgd",
    "momentum_tracking",
    "names",
    "noloco",
    "post_local_sgd",
    "push_diging",
    "push_pull",
    "push_sum",
    "qg_dsgdm",
    "register",
    "relay_sgd",
    "row_stochastic",
    "semi_atc_tracking",
    "slowmo",
]
