"""The mixing matrix of a graph and what it says about convergence.

The papers' convention: x_new[i] = sum_j W[i, j] x[j], row = receiver. J = 11^T / n is the exact
average.
"""

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import numpy.typing as npt

from .graph import check_nodes, check_type
from .weights import all_recv_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # a fifth of a second to import, so only where it is used


def mixing_matrix(graph: nx.DiGraph) -> npt.NDArray[np.float64]:
    """Returns W of shape (n, n), float64; W[i, j] is the weight that rank i gives to rank j.

    For a graph with weights it is the transpose of its networkx adjacency matrix; for one without
    it holds the uniform weights of `recv_weights`.

    Raises:
        TypeError, ValueError: the graph is not a valid topology.
    """
    n, (sources, receivers, weights) = _entries(graph)
    w = np.zeros((n, n))
    w[receivers, sources] = weights
    return w


def sparse_mixing_matrix(graph: nx.DiGraph) -> "csr_array":
    """Returns what `mixing_matrix` does as a scipy.sparse.csr_array, for graphs of many ranks.

    Raises:
        TypeError, ValueError: the graph is not a valid topology.
    """
    from scipy.sparse import csr_array

    n, (sources, receivers, weights) = _entries(graph)
    return csr_array((weights, (receivers, sources)), shape=(n, n))


def is_doubly_stochastic(graph: nx.DiGraph, atol: float = 1e-10) -> bool:
    """Whether W >= 0 and all rows and columns sum to 1 within `atol`.

    Rows that sum to 1 keep agreement once it is reached; columns that sum to 1 keep the mean.
    """
    from .analysis import spectral

    return spectral.is_doubly_stochastic(sparse_mixing_matrix(graph), atol)


def consensus_rate(graph: nx.DiGraph) -> float:
    """Returns rho = ||W - J||_2, the factor by which one step shrinks the consensus error.

    ||W x - mean(x)|| <= rho ||x - mean(x)|| for doubly stochastic W: 0 averages exactly in one
    step, and 1 means that some disagreement never shrinks. 1 - rho is the spectral gap.
    """
    from .analysis.spectral import distance_from_average

    return distance_from_average([sparse_mixing_matrix(graph)])


def _entries(graph: nx.DiGraph) -> tuple[int, tuple[npt.NDArray, npt.NDArray, npt.NDArray]]:
    check_type(graph, expected="an nx.DiGraph")
    check_nodes(graph, len(graph))
    return len(graph), all_recv_weights(graph)
