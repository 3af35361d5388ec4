"""How the ranks of a group make a window together: all of them, or none, for the same reason."""

import json
from typing import Any

import torch

from bluefog_pg import topology as topologies
from bluefog_pg._extension import load
from bluefog_pg.errors import BluefogError, MismatchError
from bluefog_pg.group import GroupState, all_gather_bytes


def agree_on_window(
    backend: Any,
    tensor: torch.Tensor,
    name: str,
    own_topology: bool,
    zero_init: bool,
    readable: bool,
) -> None:
    """Raises, on all ranks alike, unless all of them can make the window and bring an equal one."""
    own = {
        "problem": None,
        "name": str(name),
        "dtype": str(getattr(tensor, "dtype", None)),
        "shape": list(getattr(tensor, "shape", [])),
        "device": str(getattr(tensor, "device", None)).partition(":")[0],
        "zero_init": bool(zero_init),
        "readable": bool(readable),
        "topology": "an own one" if own_topology else "the group's",
    }
    problem = _problem(backend, tensor, name, own_topology)
    if problem is not None:
        own["problem"] = str(problem)
    views = [json.loads(view) for view in all_gather_bytes(backend, json.dumps(own).encode())]
    if problem is not None:
        raise problem
    for rank, view in enumerate(views):
        if view["problem"] is not None:
            raise MismatchError(f"rank {rank} cannot make window {name!r}: {view['problem']}")
    for rank, view in enumerate(views):
        for key, value in view.items():
            if value != views[0][key]:
                raise MismatchError(
                    f"the ranks make different windows: rank 0 has {key} {views[0][key]!r}, "
                    f"rank {rank} has {key} {value!r}"
                )


def _problem(backend: Any, tensor: torch.Tensor, name: str, own_topology: bool) -> Exception | None:
    """Returns why this rank cannot make the window, as far as it can tell alone."""
    state = GroupState.of(backend)
    try:
        if not isinstance(name, str):
            return TypeError(f"a window's name must be a str, got {name!r}")
        load().TensorWindow.check(tensor, name)
        if name in state.windows.open:
            return ValueError(f"there is a window {name!r} already: free it first")
        if not own_topology and state.neighborhood is None:
            return ValueError(
                "no topology is set: call bluefog_pg.set_topology(...), or give the window its own"
            )
        if not own_topology:
            topologies.union(state.neighborhood.topology)
    except (TypeError, ValueError) as error:
        return error
    return None


def make_window(
    backend: Any,
    name: str,
    tensor: torch.Tensor,
    neighbors: tuple[list[int], list[int]],
    **options: bool,
) -> Any:
    """Makes the C++ window with (in-, out-neighbours); raises on all ranks where one fails."""
    made, problem = None, None
    try:
        made = backend.make_window(name, tensor, *neighbors, **options)
    except Exception as error:  # the others wait for a word
        problem = error
    own = json.dumps("" if problem is None else str(problem))
    texts = [json.loads(text) for text in all_gather_bytes(backend, own.encode())]
    if problem is not None:
        raise problem
    failed = [rank for rank, text in enumerate(texts) if text]
    if failed and made is not None:
        made.close()
        raise BluefogError(f"rank {failed[0]} cannot make window {name!r}: {texts[failed[0]]}")
    return made
