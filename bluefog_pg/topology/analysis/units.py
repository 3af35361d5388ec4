"""Numbers as people read them."""


def seconds_text(value: float) -> str:
    """0.08005 is "80 ms"."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.1e} s" if value else "0 s"


def bytes_text(value: float) -> str:
    """100_000_000 is "100 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:g} bytes"


def factor_text(value: float) -> str:
    """A factor per step in three digits, counted from 1 where it is close to it."""
    if 0.995 <= value < 1:
        return f"1 - {1 - value:.2g}"
    return f"{value:.3g}"
