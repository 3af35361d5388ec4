"""Algorithms by name, for ``DecentralizedDataParallel(model, algorithm="atc")``."""

import re
from typing import TypeVar

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.registry import Registry

A = TypeVar("A", bound=type[Algorithm])

_algorithms: Registry[type[Algorithm]] = Registry("algorithm", "algorithms")
names = _algorithms.names
get = _algorithms.get


def register(name: str):
    """Makes a class known under `name`; use it as a decorator: ``@register("atc")``.

    Raises:
        ValueError: another class already has this name, or it is not in snake_case.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"an algorithm's name is in snake_case, got {name!r}")

    def decorate(algorithm: A) -> A:
        algorithm.name = name
        return _algorithms.add(name, algorithm)

    return decorate


def resolve(algorithm: "str | type[Algorithm] | Algorithm") -> Algorithm:
    """Returns the algorithm object that a name, a class or an object stands for.

    Raises:
        ValueError: no algorithm has this name; the message lists those that exist.
        TypeError: something else was given.
    """
    if isinstance(algorithm, str):
        algorithm = get(algorithm)
    if isinstance(algorithm, type) and issubclass(algorithm, Algorithm):
        algorithm = algorithm()
    if not isinstance(algorithm, Algorithm):
        raise TypeError(
            f"algorithm must be a name ({', '.join(names())}) or a bluefog_pg.algorithms.Algorithm,"
            f" got {algorithm!r}"
        )
    return algorithm
