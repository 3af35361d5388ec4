"""Groups that average among themselves: their matrix, and what they refuse."""

import numpy as np
import pytest

from bluefog_pg.topology import SizeError, mixing_matrix
from bluefog_pg.topology.static.cliques import cliques


def test_blocks_of_ones():
    for n, size in [(1, 1), (4, 2), (6, 3), (6, 6), (6, 1), (12, 4)]:
        expected = np.kron(np.eye(n // size), np.full((size, size), 1 / size))
        np.testing.assert_array_equal(mixing_matrix(cliques(n, size)), expected)


def test_refused_arguments():
    with pytest.raises(SizeError, match="groups of 4 ranks do not divide 6 ranks"):
        cliques(6, 4)
    with pytest.raises(ValueError, match="ranks_per_group must be at least 1, got 0"):
        cliques(6, 0)
    with pytest.raises(ValueError, match="needs at least 1 rank"):
        cliques(0, 1)
