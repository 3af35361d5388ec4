"""Methods by name, and what a method is.

A method is a generator function ``method(x, gradient, rounds, **options)`` that yields the ranks'
parameters after each iteration: nothing else is its state, so that it reads like its equation.

    x         shape (n, d): row i is what rank i starts from
    gradient  function of such an array; row i of its result is the gradient of f_i at row i
    rounds    gives (W, lr) for each iteration: the round's mixing matrix and the learning rate;
              of a `CecaSchedule` it gives (`CecaUpdate`, lr)

It leaves its arguments as they are. Its first docstring line names it; then come its equation,
where W is the round's matrix, g(x) the gradient and ' marks the next iterate, and its source.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from scipy.sparse import csr_array

from bluefog_pg.registry import Registry
from bluefog_pg.simulate.rounds import Array

Gradient = Callable[[Array], Array]
Rounds = Iterable[tuple[csr_array, float]]
Method = Callable[..., Iterator[Array]]
M = TypeVar("M", bound=Method)

_methods: Registry[Method] = Registry("method", "methods")
names = _methods.names
get = _methods.get


def register(method: M) -> M:
    """Makes a method known under its function name; use it as a decorator.

    Raises:
        ValueError: another function already has this name.
    """
    _methods.add(method.__name__, method)
    return method
