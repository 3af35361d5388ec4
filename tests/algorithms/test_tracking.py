"""Gradient tracking against the simulator's equations."""

import numpy as np
import pytest
from quadratic import Row, on_ranks, simulated

ROWS = [
    Row("awc", "ring"),
    Row("atc", "one_peer_exponential"),
    Row("gradient_tracking", "ring"),
    Row("gradient_tracking", "one_peer_exponential"),
    Row("semi_atc_tracking", "one_peer_exponential"),
    Row("diging", "exponential"),
]


@pytest.fixture(scope="module")
def iterates():
    return on_ranks(ROWS, nproc=4)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_follows_its_equation(iterates, row):
    np.testing.assert_allclose(iterates[row], simulated(row, 4), rtol=0, atol=1e-12)
