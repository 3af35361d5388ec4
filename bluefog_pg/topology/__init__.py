"""Topologies: at step k, who receives from whom, and with which weight.

A topology is an ``nx.DiGraph`` on the ranks 0..n-1, or a `Schedule` that gives one such graph per
step. Edge (j, i) carries the weight that i gives to what it receives from j (row = sender), and a
self-loop carries the self weight. Plain data: no process group, no torch.

To add a topology, write a function that takes n first and decorate it with `register`; a new file
also needs an import line here. Its tests, and everything that looks topologies up by name, pick it
up from the registry.
"""

from .check import validate
from .classic import fully_connected, mesh2d, ring, star
from .exponential import exponential, one_peer_exponential
from .fingerprint import describe_difference, edge_list, fingerprint
from .mixing import consensus_rate, is_doubly_stochastic, mixing_matrix
from .registry import get, names, register
from .schedule import Schedule, rounds
from .weights import recv_weights, send_ranks

__all__ = [
    "Schedule",
    "consensus_rate",
    "describe_difference",
    "edge_list",
    "exponential",
    "fingerprint",
    "fully_connected",
    "get",
    "is_doubly_stochastic",
    "mesh2d",
    "mixing_matrix",
    "names",
    "one_peer_exponential",
    "recv_weights",
    "register",
    "ring",
    "rounds",
    "send_ranks",
    "star",
    "validate",
]
