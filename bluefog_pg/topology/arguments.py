"""Checks of what constructors are called with, beside the number of ranks."""

import operator


def check_int(name: str, value: int, low: int) -> int:
    """Returns `value` as an int of at least `low`; `name` is how the messages call it.

    Raises:
        TypeError: it is no int.
        ValueError: it is below `low`.
    """
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {value!r}") from None
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return value


def check_seed(seed: int) -> int:
    """Returns `seed` as an int of at least 0, with the errors of `check_int`."""
    return check_int("seed", seed, 0)
