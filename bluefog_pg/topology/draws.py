"""Random choices that are a pure function of (seed, step), equal on every machine.

They read the raw words of PCG64, whose stream numpy promises not to change. What numpy.random's
Generator makes of them (shuffles, bounded integers) may differ between releases, and the ranks of
one job may run different ones.
"""

import numpy as np
import numpy.typing as npt


def random_words(seed: int, step: int, count: int) -> npt.NDArray[np.uint64]:
    """Returns `count` independent words, uniform over 0..2^64 - 1."""
    return np.random.PCG64(np.random.SeedSequence([seed, step])).random_raw(count)


def random_order(n: int, seed: int, step: int) -> list[int]:
    """Returns a permutation of 0..n-1, uniform over all of them."""
    return np.argsort(random_words(seed, step, n), kind="stable").tolist()
