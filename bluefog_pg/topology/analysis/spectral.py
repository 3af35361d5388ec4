"""How far a product of mixing matrices is from the exact average, and when it gets there.

Matrices are sparse, (receivers, senders), and given in the order in which they are applied. They
need not be square: what a scheme of two variables per rank puts before and after its rounds is a
matrix too. The norm is the largest singular value, which ARPACK finds from products with vectors
alone, so that tens of thousands of ranks take well under a second.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import block_array, csr_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

Values = npt.NDArray[np.float64]
"""One row per rank; the columns are separate experiments."""

DENSE_RANKS = 128
"""Up to here a dense singular value decomposition is as fast, and it always converges."""

ROUNDING = 1e-13
"""Per unit of the start, the distance from the average at which only rounding is left."""

_SURELY_NOT_ROUNDING = 1e-8


def distance_from_average(matrices: Sequence[csr_array]) -> float:
    """Returns ||W_T ... W_1 - J||_2 for the matrices W_1, ..., W_T.

    It is right to several digits however small it is, unless the product is exact, which leaves
    some rounding, or some W is not doubly stochastic.

    Raises:
        ArpackNoConvergence: more than DENSE_RANKS ranks that mix so slowly that the norm is hidden
            among others like it.
    """
    n = matrices[0].shape[1]
    centre = all(map(is_doubly_stochastic, matrices)) and first_exact(matrices) is None
    if n <= DENSE_RANKS:
        return float(np.linalg.norm(_deviation(matrices, np.eye(n), centre), ord=2))
    sample = random_values(n)
    # The Frobenius norm of W - J, estimated: at most sqrt(n) times the norm that is sought.
    scale = float(np.linalg.norm(_deviation(matrices, sample, centre))) / math.sqrt(sample.shape[1])
    if not centre and scale < n * ROUNDING:
        return scale  # ARPACK would take rounding for a matrix
    gram = _gram(matrices, scale, centre)
    try:
        return scale * _root_of_largest(gram, tol=1e-10, restarts=25)
    except ArpackNoConvergence:
        if len(matrices) == 1 and centre:
            return _second_singular_value(matrices[0])
        return scale * _root_of_largest(gram, tol=1e-4, restarts=1000)


def first_exact(matrices: Sequence[csr_array], repeat: int = 1) -> int | None:
    """Returns how many of the matrices make the exact average; None if they never do.

    Random values show it: exact methods drop from a visible disagreement to rounding in one round,
    and others, if they come to rounding, pass through everything in between.

    Args:
        matrices: W_1, ..., W_T.
        repeat: how often the list is applied.
    """
    before = math.inf
    for count, deviation in enumerate(_deviations(matrices, repeat)):
        error = float(np.abs(deviation).max())
        if error <= ROUNDING:
            return count if before > _SURELY_NOT_ROUNDING else None
        before = error
    return None


def mean_square_rate(matrices: Sequence[csr_array]) -> float:
    """Returns the factor by which one round shrinks random disagreement, in the root mean square.

    That is sqrt(||W - J||_F^2 / (n - 1)) with the mean over the rounds under the root.
    """
    n = matrices[0].shape[1]
    # ||W - J||_F^2 = ||W||_F^2 - 2 sum(W)/n + 1
    squares = [float((w.data**2).sum() - 2 * w.sum() / n + 1) for w in matrices]
    return math.sqrt(max(math.fsum(squares) / len(squares), 0.0) / max(n - 1, 1))


def is_doubly_stochastic(w: csr_array, atol: float = 1e-10) -> bool:
    """Whether W is square, W >= 0, and all rows and columns sum to 1 within `atol`."""
    if w.shape[0] != w.shape[1]:
        return False
    sums = np.concatenate([w.sum(axis=0), w.sum(axis=1)])
    return bool((w.data >= 0).all() and np.allclose(sums, 1, rtol=0, atol=atol))


def smallest_eigenvalue(w: csr_array) -> float:
    """Returns the smallest eigenvalue of a symmetric matrix, to 1e-6 of its norm or better."""
    n = w.shape[0]
    if n <= DENSE_RANKS:
        return float(np.linalg.eigvalsh(w.toarray())[0])
    (value,) = eigsh(w, k=1, which="SA", v0=_start(n), tol=1e-6, return_eigenvectors=False)
    return float(value)


def random_values(n: int) -> Values:
    """Returns normal values of shape (n, 4), the same in every call."""
    return np.random.Generator(np.random.PCG64(n)).standard_normal((n, 4))


def _deviations(matrices: Sequence[csr_array], repeat: int) -> Iterator[Values]:
    """How far random values are from their mean, before the first and after each matrix."""
    x = random_values(matrices[0].shape[1])
    mean = x.mean(axis=0)
    yield x - mean
    for _ in range(repeat):
        for w in matrices:
            x = w @ x
            yield x - mean


def _deviation(matrices: Sequence[csr_array], x: Values, centre: bool) -> Values:
    """(W_T ... W_1 - J) x. `centre`: by taking the mean away in each round, which is the same for
    doubly stochastic W and loses no digits where the result is tiny."""
    mean = x.mean(axis=0)
    if not centre:
        for w in matrices:
            x = w @ x
        return x - mean
    x = x - mean
    for w in matrices:
        x = w @ x
        x -= x.mean(axis=0)
    return x


def _gram(matrices: Sequence[csr_array], scale: float, centre: bool) -> LinearOperator:
    """A^T A, A = (W_T ... W_1 - J) / scale: its eigenvalues are the squared singular values of A.

    Scaled, because what is far below 1 is zero to ARPACK.
    """
    transposed = [w.T.tocsr() for w in reversed(matrices)]
    n = matrices[0].shape[1]

    def multiply(x: Values) -> Values:
        there = _deviation(matrices, x.ravel(), centre) / scale
        return _deviation(transposed, there, centre) / scale

    return LinearOperator((n, n), matvec=multiply, dtype=np.float64)


def _root_of_largest(gram: LinearOperator, tol: float, restarts: int) -> float:
    start = _start(gram.shape[0])
    (value,) = eigsh(
        gram, k=1, which="LA", v0=start, tol=tol, maxiter=restarts, return_eigenvectors=False
    )
    return math.sqrt(max(float(value), 0.0))


def _second_singular_value(w: csr_array) -> float:
    """That of a doubly stochastic matrix whose largest ones are hardly below the 1 of the average.

    A ring's differ by 1/n^2, which products with vectors need n steps to see. Solving with the
    shifted matrix pulls them apart, and is fast for graphs that mix this slowly: they are thin.
    """
    n = w.shape[0]
    both = block_array([[None, w], [w.T, None]], format="csc")  # eigenvalues: +- singular values
    shift = 1 + 1e-7
    values = eigsh(both, k=2, sigma=shift, v0=_start(2 * n), return_eigenvectors=False)
    return float(min(values))


def _start(n: int) -> Values:
    """ARPACK's own start would differ from call to call."""
    return random_values(n)[:, 0]
