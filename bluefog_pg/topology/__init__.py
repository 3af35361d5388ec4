"""Topologies: at step k, who receives from whom, and with which weight.

A topology is an ``nx.DiGraph`` on the ranks 0..n-1, or a `Schedule` that gives one such graph per
step. Edge (j, i) carries the weight that i gives to what it receives from j (row = sender), and a
self-loop carries the self weight. Plain data: no process group, no torch.

    static/, dynamic/   the constructors, one family a file
    analysis/           what a topology is good for, what it costs, which one to choose

To add a topology, write a function that takes n first and decorate it with `register`; a new file
also needs an import line here. Its tests, and everything that looks topologies up by name, pick it
up from the registry.
"""

from .analysis.analyze import Analysis, analyze
from .analysis.choice import Candidate, Choice, auto, choose
from .analysis.cost import Link, Links
from .analysis.safety import algorithms, need_of, require_safe, safe_for
from .bluefog import (
    ExponentialGraph,
    ExponentialTwoGraph,
    FullyConnectedGraph,
    GetRecvWeights,
    GetSendWeights,
    IsRegularGraph,
    IsTopologyEquivalent,
    MeshGrid2DGraph,
    RingGraph,
    StarGraph,
    SymmetricExponentialGraph,
    isPowerOf,
)
from .bluefog_iterators import (
    GetDynamicOnePeerSendRecvRanks,
    GetExp2DynamicSendRecvMachineRanks,
    GetInnerOuterExpo2DynamicSendRecvRanks,
    GetInnerOuterRingDynamicSendRecvRanks,
)
from .build import SizeError, metropolis_hastings
from .check import problems, validate
from .dynamic.base_graph import base_graph
from .dynamic.ceca import CecaSchedule, CecaUpdate, ceca
from .dynamic.cuboid import hyper_cuboid
from .dynamic.hosts import hierarchical_exponential, inner_outer_exponential, inner_outer_ring
from .dynamic.one_peer import dissemination, one_peer_exponential, one_peer_hypercube
from .dynamic.randomized import equi_dyn, random_matching
from .fingerprint import describe_difference, edge_list, fingerprint
from .mixing import consensus_rate, is_doubly_stochastic, mixing_matrix, sparse_mixing_matrix
from .peers import from_peers
from .registry import get, names, register
from .schedule import Schedule, rounds
from .static.classic import fully_connected, ring, star
from .static.de_bruijn import de_bruijn
from .static.equi_static import equi_static
from .static.exponential import exponential, symmetric_exponential
from .static.grid import hypercube, mesh2d, torus2d
from .static.random_graphs import erdos_renyi, random_regular
from .static.trees import balanced_tree
from .transform import column_stochastic, each_graph, lazy, row_stochastic, union
from .weights import recv_weights, send_ranks

__all__ = [
    "Analysis",
    "Candidate",
    "CecaSchedule",
    "CecaUpdate",
    "Choice",
    "ExponentialGraph",
    "ExponentialTwoGraph",
    "FullyConnectedGraph",
    "GetDynamicOnePeerSendRecvRanks",
    "GetExp2DynamicSendRecvMachineRanks",
    "GetInnerOuterExpo2DynamicSendRecvRanks",
    "GetInnerOuterRingDynamicSendRecvRanks",
    "GetRecvWeights",
    "GetSendWeights",
    "IsRegularGraph",
    "IsTopologyEquivalent",
    "Link",
    "Links",
    "MeshGrid2DGraph",
    "RingGraph",
    "Schedule",
    "SizeError",
    "StarGraph",
    "SymmetricExponentialGraph",
    "algorithms",
    "analyze",
    "auto",
    "balanced_tree",
    "base_graph",
    "ceca",
    "choose",
    "column_stochastic",
    "consensus_rate",
    "de_bruijn",
    "describe_difference",
    "dissemination",
    "each_graph",
    "edge_list",
    "equi_dyn",
    "equi_static",
    "erdos_renyi",
    "exponential",
    "fingerprint",
    "from_peers",
    "fully_connected",
    "get",
    "hierarchical_exponential",
    "hyper_cuboid",
    "hypercube",
    "inner_outer_exponential",
    "inner_outer_ring",
    "isPowerOf",
    "is_doubly_stochastic",
    "lazy",
    "mesh2d",
    "metropolis_hastings",
    "mixing_matrix",
    "names",
    "need_of",
    "one_peer_exponential",
    "one_peer_hypercube",
    "problems",
    "random_matching",
    "random_regular",
    "recv_weights",
    "register",
    "require_safe",
    "ring",
    "rounds",
    "row_stochastic",
    "safe_for",
    "send_ranks",
    "sparse_mixing_matrix",
    "star",
    "symmetric_exponential",
    "torus2d",
    "union",
    "validate",
]
