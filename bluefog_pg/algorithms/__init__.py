"""Algorithms of decentralized optimization, for ``DecentralizedDataParallel(model, algorithm=)``.

To add one, write a subclass of `Algorithm` in a file of its own, with its equation at the top,
decorate it with `register` and import it here; tests and the table in the docs find it by name.
"""

from .algorithm import Algorithm
from .asynchronous import ADPSGD, A2CiD2, AsyncPushSum, PullGet, WinPut
from .atc import ATC
from .awc import AWC
from .ceca import CECA
from .decentlam import DecentLaM
from .diloco import DiLoCo
from .dmsgd import DmSGD, DmSGDMixed
from .exact_diffusion import D2, ExactDiffusion
from .extra import EXTRA
from .gasloc import GASLoC
from .gossipgrad import GossipGraD
from .gradient_allreduce import GradientAllreduce
from .gradient_tracking import DIGing, GradientTracking, SemiATCTracking
from .hierarchical_sgd import HierarchicalSGD
from .local_sgd import LocalSGD, PostLocalSGD
from .momentum import Momentum
from .momentum_tracking import MomentumTracking
from .noloco import NoLoCo
from .push import PushDIGing, PushSum
from .push_pull import PushPull
from .qg_dsgdm import QGDSGDm
from .registry import get, names, register, resolve
from .relay_sgd import RelaySGD
from .slowmo import SlowMo

__all__ = [
    "ADPSGD",
    "ATC",
    "AWC",
    "CECA",
    "D2",
    "EXTRA",
    "A2CiD2",
    "Algorithm",
    "AsyncPushSum",
    "DIGing",
    "DecentLaM",
    "DiLoCo",
    "DmSGD",
    "DmSGDMixed",
    "ExactDiffusion",
    "GASLoC",
    "GossipGraD",
    "GradientAllreduce",
    "GradientTracking",
    "HierarchicalSGD",
    "LocalSGD",
    "Momentum",
    "MomentumTracking",
    "NoLoCo",
    "PostLocalSGD",
    "PullGet",
    "PushDIGing",
    "PushPull",
    "PushSum",
    "QGDSGDm",
    "RelaySGD",
    "SemiATCTracking",
    "SlowMo",
    "WinPut",
    "get",
    "names",
    "register",
    "resolve",
]
