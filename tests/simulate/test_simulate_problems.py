"""The problems' gradients, optima and errors."""

import numpy as np
import pytest

from bluefog_pg.simulate import LeastSquares, Logistic, least_squares, logistic, noisy


def numeric_gradient(loss, x, step=1e-6):
    """Central differences of `loss`, which takes one rank's row, in all entries of x."""
    gradient = np.zeros_like(x)
    for i, row in enumerate(x):
        for k in range(len(row)):
            e = step * np.eye(len(row))[k]
            gradient[i, k] = (loss(i, row + e) - loss(i, row - e)) / (2 * step)
    return gradient


def test_gradient_of_least_squares():
    random = np.random.default_rng(1)
    a, b, x = (random.standard_normal(shape) for shape in ((3, 7, 4), (3, 7), (3, 4)))
    for scale in (1.0, 1 / 7):
        expected = numeric_gradient(
            lambda i, row, scale=scale: scale / 2 * np.sum((a[i] @ row - b[i]) ** 2), x
        )
        np.testing.assert_allclose(LeastSquares(a, b, scale).gradient(x), expected, atol=1e-7)


def test_optimum_of_least_squares_is_that_of_all_rows():
    problem = least_squares(5, dim=3, rows=8)
    at_optimum = np.tile(problem.optimum, (5, 1))
    np.testing.assert_allclose(problem.gradient(at_optimum).mean(axis=0), 0, atol=1e-14)
    assert np.abs(problem.gradient(at_optimum)).max() > 0.1  # the ranks disagree
    assert problem.error(at_optimum) == 0
    assert problem.error(np.zeros((5, 3))) == pytest.approx(1)
    assert problem.error(3 * at_optimum) == pytest.approx(2)


def test_ranks_without_heterogeneity_and_noise_agree():
    problem = least_squares(4, heterogeneity=0, noise=0)
    at_optimum = np.tile(problem.optimum, (4, 1))
    np.testing.assert_allclose(problem.gradient(at_optimum), 0, atol=1e-13)


def test_gradient_of_logistic():
    random = np.random.default_rng(2)
    h, x = random.standard_normal((3, 9, 4)), random.standard_normal((3, 4))
    y = np.where(random.random((3, 9)) < 0.5, -1.0, 1.0)

    def loss(i, row):
        fit = np.mean(np.log1p(np.exp(-y[i] * (h[i] @ row))))
        return fit + 0.3 * np.sum(row**2 / (1 + row**2))

    problem = Logistic(h, y, regularization=0.3)
    np.testing.assert_allclose(problem.gradient(x), numeric_gradient(loss, x), atol=1e-8)
    mean = np.tile(x.mean(axis=0), (3, 1))
    expected = np.linalg.norm(problem.gradient(mean).mean(axis=0))
    assert problem.error(x) == pytest.approx(expected)


def test_logistic_far_away_does_not_overflow():
    problem = logistic(2, dim=3, samples=20)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(problem.gradient(np.full((2, 3), 1e4))).all()


def test_labels_of_logistic_follow_the_model():
    # At the x that the labels were drawn with, the gradient is sampling noise of 1/sqrt(samples).
    problem = logistic(2, dim=3, samples=40_000, heterogeneity=0, regularization=0, seed=5)
    random = np.random.Generator(np.random.PCG64(5))
    x = random.standard_normal(3)
    assert np.abs(problem.gradient(np.tile(x, (2, 1)))).max() < 5 / np.sqrt(40_000)


def test_noise_has_its_size_and_is_the_same_for_equal_seeds():
    exact = least_squares(50).gradient
    x = np.zeros((50, 10))
    one, same, other = noisy(exact, 3.0, seed=1), noisy(exact, 3.0, seed=1), noisy(exact, 3.0, 2)
    first = one(x) - exact(x)
    assert first.std() == pytest.approx(3, rel=0.1)
    assert abs(first.mean()) < 5 * 3 / np.sqrt(500)
    same(x)
    np.testing.assert_array_equal(one(x), same(x))  # the second call of each
    assert not np.array_equal(other(x) - exact(x), first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeastSquares(np.ones((2, 3, 1)), np.ones((2, 4))), r"\(2, 3, 1\), \(2, 4\)"),
        (lambda: LeastSquares(np.ones((2, 3)), np.ones(2)), r"A must be \(n, rows, dim\)"),
        (lambda: least_squares(2, dim=7, rows=3), "6 rows don't determine 7 unknowns"),
        (lambda: Logistic(np.ones((2, 3, 1)), np.ones((3, 2))), r"h must be \(n, samples, dim\)"),
    ],
)
def test_refused_data(make, message):
    with pytest.raises(ValueError, match=message):
        make()
