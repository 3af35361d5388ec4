"""The mixing matrix of a graph and what it says about convergence.

The papers' convention: x_new[i] = sum_j W[i, j] x[j], row = receiver. J = 11^T / n is the exact
average.
"""

import networkx as nx
import numpy as np
import numpy.typing as npt

from .graph import check_graph, check_type
from .weights import recv_weights


def mixing_matrix(graph: nx.DiGraph) -> npt.NDArray[np.float64]:
    """Returns W of shape (n, n), float64; W[i, j] is the weight that rank i gives to rank j.

    For a graph with weights it is the transpose of its networkx adjacency matrix; for one without
    it holds the uniform weights of `recv_weights`.

    Raises:
        TypeError, ValueError: the graph is not a valid topology.
    """
    check_type(graph, expected="an nx.DiGraph")
    n = len(graph)
    check_graph(graph, n)
    w = np.zeros((n, n))
    for rank in range(n):
        w[rank, rank], sources = recv_weights(graph, rank)
        for src, weight in sources.items():
            w[rank, src] = weight
    return w


def is_doubly_stochastic(graph: nx.DiGraph, atol: float = 1e-10) -> bool:
    """Whether W >= 0 and all rows and columns sum to 1 within `atol`.

    Rows that sum to 1 keep agreement once it is reached; columns that sum to 1 keep the mean.
    """
    w = mixing_matrix(graph)
    sums = np.concatenate([w.sum(axis=0), w.sum(axis=1)])
    return bool((w >= 0).all() and np.allclose(sums, 1, rtol=0, atol=atol))


def consensus_rate(graph: nx.DiGraph) -> float:
    """Returns rho = ||W - J||_2, the factor by which one step shrinks the consensus error.

    ||W x - mean(x)|| <= rho ||x - mean(x)|| for doubly stochastic W: 0 averages exactly in one
    step, and 1 means that some disagreement never shrinks. 1 - rho is the spectral gap.
    """
    w = mixing_matrix(graph)
    return float(np.linalg.norm(w - 1 / len(w), ord=2))
