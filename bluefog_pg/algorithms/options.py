"""Checks of the numbers that algorithms are made with."""

from numbers import Real


def check_momentum(name: str, value: float) -> float:
    """Returns `value` as a float in [0, 1).

    Raises:
        TypeError: it is no real number.
        ValueError: it is out of range.
    """
    if not 0 <= _check_real(name, value) < 1:  # NaN too
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return float(value)


def check_rate(name: str, value: float) -> float:
    """Returns `value` as a float above 0 and finite, with the errors of `check_momentum`."""
    if not 0 < _check_real(name, value) < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return float(value)


def _check_real(name: str, value: float) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return value
