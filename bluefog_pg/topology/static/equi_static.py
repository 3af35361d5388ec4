"""EquiStatic graphs: a consensus rate that does not grow with n, at a degree of order log n.

Song, Li, Jin, Shi, Yan, Yin and Yuan, "Communication-Efficient Topologies for Decentralized
Learning with O(1) Consensus Rate", NeurIPS 2022 (arXiv 2210.07881).
"""

from collections.abc import Iterator
from itertools import count, islice

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..arguments import check_int, check_seed
from ..build import check_size, circulant, weighted_circulant
from ..draws import random_words
from ..registry import register

Array = npt.NDArray[np.float64]


@register
def equi_static(
    n: int, m: int | None = None, seed: int = 0, directed: bool = True, candidates: int = 16
) -> nx.DiGraph:
    """D-EquiStatic: rank i sends to i + s_1, ..., i + s_m (mod n) for m random shifts s.

    W = (1/m) sum_k A_{s_k} with A_s = I/n + (1 - 1/n) P_s, where P_s receives from rank i - s and
    each shift is drawn from 1..n-1, all equally likely. Of several such draws the one with the
    smallest consensus rate is taken.

    Args:
        n: number of ranks.
        m: number of shifts, and the largest in- and out-degree. Default: ceil(log2 n), as many as
            `exponential` has. With m = 8 ln(2n/p) / (3 eps^2), or more, each draw has a rate of at
            most eps with a probability of at least 1 - p.
        seed: the same on all ranks.
        directed: if False, U-EquiStatic: (W + W^T)/2 is symmetric, with up to 2m neighbours.
        candidates: how many draws to choose from. Draws that don't connect all ranks don't count.

    Raises:
        ValueError: n, m or candidates below 1, or a seed below 0.
    """
    n, seed = check_size(n), check_seed(seed)
    m = check_int("m", max((n - 1).bit_length(), 1) if m is None else m, low=1)
    candidates = check_int("candidates", candidates, low=1)
    if n == 1:
        return circulant(1, [])
    draws = islice(_connected_draws(n, m, seed), candidates)
    weights = _best([_weights(n, shifts, directed) for shifts in draws])
    return weighted_circulant(n, {int(d): float(weights[d]) for d in np.flatnonzero(weights)})


def _connected_draws(n: int, m: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    for draw in count():
        shifts = 1 + (random_words(seed, draw, m) % (n - 1)).astype(np.int64)
        if np.gcd.reduce([n, *shifts]) == 1:
            yield shifts


def _weights(n: int, shifts: npt.NDArray[np.int64], directed: bool) -> Array:
    """Shape (n,): the weight of each offset."""
    weights = np.bincount(shifts, minlength=n) * ((n - 1) / (n * len(shifts)))
    weights[0] = 1 / n
    return weights if directed else (weights + np.roll(weights[::-1], 1)) / 2


def _best(candidates: list[Array]) -> Array:
    """The one with the smallest rate: a circulant's eigenvalues are the weights' Fourier transform.

    Rates may differ by mere rounding, which is not the same on every machine: the first one wins.
    """
    rates = np.abs(np.fft.fft(candidates)[:, 1:]).max(axis=1)
    return candidates[int(np.argmax(rates <= rates.min() + 1e-9))]
