"""Things by name: topologies, algorithms, methods of the simulator."""

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Functions or classes of one kind, each under its own ``__name__``."""

    def __init__(self, kind: str, kinds: str) -> None:
        """kind, kinds: what one and several of them are called in messages."""
        self._kind, self._kinds = kind, kinds
        self._members: dict[str, Any] = {}

    def add(self, name: str, member: T) -> T:
        """Makes `member` known; one that its reloaded module defines again replaces the old one.

        Raises:
            ValueError: something from elsewhere has this name.
        """
        known = self._members.get(name)
        if known is not None and _origin(known) != _origin(member):
            raise ValueError(
                f"the {self._kind} name {name!r} is taken by {_origin(known)}; "
                f"rename {_origin(member)}"
            )
        self._members[name] = member
        return member

    def names(self) -> list[str]:
        """Returns all names, sorted."""
        return sorted(self._members)

    def get(self, name: str) -> T:
        """Returns the member of this name.

        Raises:
            ValueError: there is none; the message lists those that exist.
        """
        if name not in self._members:
            raise ValueError(
                f"unknown {self._kind} {name!r}; known {self._kinds}: {', '.join(self.names())}"
            )
        return self._members[name]


def _origin(member: Any) -> str:
    return f"{member.__module__}.{member.__qualname__}"
