"""Topology constructors by name, for ``topology="ring"`` and the command line."""

from collections.abc import Callable
from typing import TypeVar

import networkx as nx

from ..registry import Registry
from .schedule import Schedule

Constructor = Callable[..., nx.DiGraph | Schedule]
F = TypeVar("F", bound=Constructor)

_constructors: Registry[Constructor] = Registry("topology", "topologies")
names = _constructors.names
get = _constructors.get  # get("ring")(8) is ring(8)


def register(constructor: F) -> F:
    """Makes a constructor known under its function name; use it as a decorator.

    The constructor takes the number of ranks n first, has defaults for everything else, and
    returns an ``nx.DiGraph`` on 0..n-1 or a `Schedule` of size n. Where it does not exist for an
    n >= 1, it raises `SizeError` with a message that says for which it does.

    Raises:
        ValueError: another function already has this name.
    """
    _constructors.add(constructor.__name__, constructor)
    return constructor
