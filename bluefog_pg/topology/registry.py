"""Topology constructors by name, for ``topology="ring"`` and the command line."""

from collections.abc import Callable
from typing import TypeVar

import networkx as nx

from .schedule import Schedule

Constructor = Callable[..., nx.DiGraph | Schedule]
F = TypeVar("F", bound=Constructor)

_constructors: dict[str, Constructor] = {}


def register(constructor: F) -> F:
    """Makes a constructor known under its function name; use it as a decorator.

    The constructor takes the number of ranks n first, has defaults for everything else, and
    returns an ``nx.DiGraph`` on 0..n-1 or a `Schedule` of size n. Where it does not exist for an
    n >= 1, it raises `SizeError` with a message that says for which it does.

    Raises:
        ValueError: another function already has this name.
    """
    name = constructor.__name__
    known = _constructors.get(name)
    # A module that is reloaded registers its functions again; that replaces them.
    if known is not None and _origin(known) != _origin(constructor):
        raise ValueError(
            f"the topology name {name!r} is taken by {_origin(known)}; "
            f"rename the function {_origin(constructor)}"
        )
    _constructors[name] = constructor
    return constructor


def names() -> list[str]:
    """Returns the names of all registered topologies, sorted."""
    return sorted(_constructors)


def get(name: str) -> Constructor:
    """Returns the constructor registered under `name`: ``get("ring")(8)`` is ``ring(8)``.

    Raises:
        ValueError: no topology has this name; the message lists those that exist.
    """
    if name not in _constructors:
        raise ValueError(f"unknown topology {name!r}; known topologies: {', '.join(names())}")
    return _constructors[name]


def _origin(constructor: Constructor) -> str:
    return f"{constructor.__module__}.{constructor.__qualname__}"
