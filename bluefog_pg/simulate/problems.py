"""Optimization problems spread over ranks: minimize the mean over i of f_i, rank i knows f_i.

x holds one row per rank, shape (n, dim): row i is rank i's idea of the solution.
"""

from typing import Protocol

import numpy as np
from numpy.random import PCG64, Generator
from scipy.special import expit

from bluefog_pg.simulate.methods.registry import Gradient
from bluefog_pg.simulate.rounds import Array
from bluefog_pg.topology.build import check_size


class Problem(Protocol):
    """What a problem has: the number of ranks n, the dimension, and two functions of x."""

    n: int
    dim: int

    def gradient(self, x: Array) -> Array:
        """Returns, in row i, the gradient of f_i at row i of x."""

    def error(self, x: Array) -> float:
        """Returns how far x is from a solution, 0 at one."""


class LeastSquares:
    """f_i(x) = scale / 2 ||A_i x - b_i||^2.

    Args:
        a: A, shape (n, rows, dim).
        b: b, shape (n, rows).
        scale: 1 / rows makes f_i a mean over the rows; 1 leaves their sum.

    Raises:
        ValueError: the shapes don't fit, or the mean of the f_i has no unique minimum.
    """

    def __init__(self, a: Array, b: Array, scale: float = 1.0) -> None:
        if a.ndim != 3 or b.shape != a.shape[:2]:
            raise ValueError(f"A must be (n, rows, dim) and b (n, rows), got {a.shape}, {b.shape}")
        self.n, _, self.dim = a.shape
        self.hessians = scale * (a.swapaxes(1, 2) @ a)  # (n, dim, dim)
        self._offsets = scale * (
            a.swapaxes(1, 2) @ b[..., None]
        )  # (n, dim, 1): gradient = H x - offset
        mean = self.hessians.mean(axis=0)
        if np.linalg.matrix_rank(mean) < self.dim:
            raise ValueError(f"{a.shape[0] * a.shape[1]} rows don't determine {self.dim} unknowns")
        self.optimum = np.linalg.solve(mean, self._offsets.mean(axis=0))[:, 0]

    def gradient(self, x: Array) -> Array:
        return (self.hessians @ x[..., None] - self._offsets)[..., 0]

    def error(self, x: Array) -> float:
        """Returns ||X - 1 x*^T||_F / ||1 x*^T||_F, the error relative to the optimum x*."""
        distance = np.linalg.norm(x - self.optimum)
        return float(distance / (np.sqrt(self.n) * np.linalg.norm(self.optimum)))


def least_squares(
    n: int,
    dim: int = 10,
    rows: int = 60,
    heterogeneity: float = 1.0,
    noise: float = 0.1,
    scale: float | None = None,
    seed: int = 0,
) -> LeastSquares:
    """Draws a `LeastSquares` problem: b_i = A_i (x + heterogeneity h_i) + noise e_i.

    The entries of A, x, h and e are standard normal, so rank i's own optimum is about x plus
    `heterogeneity` times h_i, and all ranks share x if it is 0. The default scale is 1 / rows.
    """
    n, random = check_size(n), Generator(PCG64(seed))
    a = random.standard_normal((n, rows, dim))
    x = heterogeneity * random.standard_normal((n, dim)) + random.standard_normal(dim)
    b = (a @ x[..., None])[..., 0] + noise * random.standard_normal((n, rows))
    return LeastSquares(a, b, 1 / rows if scale is None else scale)


class Logistic:
    """f_i(x) = mean over l of log(1 + exp(-y_il h_il^T x)) + R sum_k x_k^2 / (1 + x_k^2).

    Not convex, so `error` measures the gradient.

    Args:
        h: features, shape (n, samples, dim).
        y: labels -1 or 1, shape (n, samples).
        regularization: R.
    """

    def __init__(self, h: Array, y: Array, regularization: float = 0.001) -> None:
        if h.ndim != 3 or y.shape != h.shape[:2]:
            raise ValueError(
                f"h must be (n, samples, dim) and y (n, samples), got {h.shape}, {y.shape}"
            )
        self.n, _, self.dim = h.shape
        self.regularization = regularization
        self._signed = y[..., None] * h

    def gradient(self, x: Array) -> Array:
        margins = self._signed @ x[..., None]  # (n, samples, 1)
        slopes = expit(-margins) / margins.shape[1]
        penalty = 2 * self.regularization * x / (1 + x * x) ** 2
        return penalty - (self._signed.swapaxes(1, 2) @ slopes)[..., 0]

    def error(self, x: Array) -> float:
        """Returns the norm of the gradient of the mean of all f_i at the mean row of x."""
        mean = np.broadcast_to(x.mean(axis=0), x.shape)
        return float(np.linalg.norm(self.gradient(mean).mean(axis=0)))


def logistic(
    n: int,
    dim: int = 10,
    samples: int = 1000,
    heterogeneity: float = 0.2,
    regularization: float = 0.001,
    seed: int = 0,
) -> Logistic:
    """Draws a `Logistic` problem whose ranks have different distributions.

    Features are standard normal. Rank i draws y = 1 with probability 1 / (1 + exp(-h^T x_i)),
    x_i = x + heterogeneity h_i with standard normal x and h_i.
    """
    n, random = check_size(n), Generator(PCG64(seed))
    x = random.standard_normal(dim) + heterogeneity * random.standard_normal((n, dim))
    h = random.standard_normal((n, samples, dim))
    probability = expit((h @ x[..., None])[..., 0])
    y = np.where(random.random((n, samples)) < probability, 1.0, -1.0)
    return Logistic(h, y, regularization)


def noisy(gradient: Gradient, sigma: float, seed: int = 0) -> Gradient:
    """Returns a stochastic gradient: `gradient` plus sigma times standard normal noise.

    The noise of the k-th call depends on k and the seed alone, so that methods can be compared.
    """
    random = Generator(PCG64(seed))

    def stochastic(x: Array) -> Array:
        return gradient(x) + sigma * random.standard_normal(x.shape)

    return stochastic
