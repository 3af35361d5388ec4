"""One-sided windows as functions with BlueFog's names; `Window` has the same as methods.

    win_create(x, "x", zero_init=True)
    for _ in range(100):
        win_accumulate(x, "x", self_weight=1 / 2, dst_weights={right: 1 / 2})
        win_update_then_collect("x")
    win_free("x")

They raise what the methods raise, and ValueError for a name of no open window. `tensor` may be
another one than the window's; `group` is a process group of backend "bluefog", default: the world.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from bluefog_pg._window import GroupWindows, Window
from bluefog_pg.group import GroupState, backend_of
from bluefog_pg.ops import Weights


def win_create(
    tensor: torch.Tensor, name: str, zero_init: bool = False, *, group: Any = None
) -> Window:
    """Makes a window, which lives until `win_free`; collective. See `Window`."""
    return Window(tensor, name, zero_init=zero_init, group=group)


def win_free(name: str | None = None, *, group: Any = None) -> None:
    """Frees a window, or all in the order in which they were made; see `Window.free`."""
    for each in list(_windows(group).open) if name is None else [name]:
        _window(each, group).free()


def win_close(name: str, *, group: Any = None) -> None:
    """Ends a window without a word to the others, if there is one; see `Window.close`."""
    window = _windows(group).open.get(name)
    if window is not None:
        window.close()


def win_put(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> None:
    """mailbox_j[i] <- dst_weights[j] tensor, then tensor *= self_weight; see `Window.put`."""
    _window(name, group).put(
        tensor,
        self_weight=_one(self_weight),
        dst_weights=dst_weights,
        require_mutex=require_mutex,
    )


def win_put_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> Any:
    """Starts a `win_put`; returns a handle for `win_wait` and `win_poll`."""
    return _window(name, group).put(
        tensor,
        self_weight=_one(self_weight),
        dst_weights=dst_weights,
        require_mutex=require_mutex,
        async_op=True,
    )


def win_accumulate(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> None:
    """mailbox_j[i] += dst_weights[j] tensor, then as `win_put`; see `Window.accumulate`."""
    _window(name, group).accumulate(
        tensor,
        self_weight=_one(self_weight),
        dst_weights=dst_weights,
        require_mutex=require_mutex,
    )


def win_accumulate_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> Any:
    """Starts a `win_accumulate`; returns a handle for `win_wait` and `win_poll`."""
    return _window(name, group).accumulate(
        tensor,
        self_weight=_one(self_weight),
        dst_weights=dst_weights,
        require_mutex=require_mutex,
        async_op=True,
    )


def win_get(
    name: str,
    src_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> None:
    """mailbox_i[j] <- src_weights[j] x_j; see `Window.get`."""
    _window(name, group).get(src_weights=src_weights, require_mutex=require_mutex)


def win_get_nonblocking(
    name: str,
    src_weights: Weights | None = None,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> Any:
    """Starts a `win_get`; returns a handle for `win_wait` and `win_poll`."""
    return _window(name, group).get(
        src_weights=src_weights, require_mutex=require_mutex, async_op=True
    )


def win_update(
    name: str,
    self_weight: float | None = None,
    neighbor_weights: Mapping[int, float] | None = None,
    reset: bool = False,
    clone: bool = False,
    require_mutex: bool = False,
    *,
    group: Any = None,
) -> torch.Tensor:
    """x <- self_weight x + sum_j neighbor_weights[j] mailbox[j]; returns x. See `Window.update`."""
    return _window(name, group).update(
        self_weight=self_weight,
        neighbor_weights=neighbor_weights,
        reset=reset,
        clone=clone,
        require_mutex=require_mutex,
    )


def win_update_then_collect(
    name: str, require_mutex: bool = True, *, group: Any = None
) -> torch.Tensor:
    """x <- x + the sum of all mailboxes, which are empty after that; returns x."""
    return _window(name, group).update_then_collect(require_mutex=require_mutex)


def win_wait(handle: Any) -> None:
    """Waits for a nonblocking call, and raises its error if it has failed."""
    handle.wait()


def win_poll(handle: Any) -> bool:
    """Returns whether a nonblocking call is over."""
    return handle.done()


def win_flush(name: str, *, group: Any = None) -> None:
    """Waits until all that this rank has sent is in the mailboxes; see `Window.flush`."""
    _window(name, group).flush()


def win_fence(name: str, *, group: Any = None) -> None:
    """After it all that any rank has sent before is in the mailboxes: a flush and a barrier."""
    _window(name, group).flush()
    backend_of(group).barrier().wait()


def win_mutex(
    name: str, for_self: bool = False, ranks: Sequence[int] | None = None, *, group: Any = None
) -> AbstractContextManager[None]:
    """Holds mutexes of mailboxes: `with win_mutex("x"): ...`; see `Window.mutex`."""
    return _window(name, group).mutex(for_self=for_self, ranks=ranks)


def win_lock(name: str, *, group: Any = None) -> AbstractContextManager[None]:
    """An epoch in which nobody who asks for mutexes writes this rank's mailboxes."""
    return _window(name, group).mutex(for_self=True)


def get_win_version(name: str, *, group: Any = None) -> dict[int, int]:
    """Returns {in-neighbour: puts and gets that no update has used yet}."""
    return _window(name, group).versions()


def win_statistics(name: str, *, group: Any = None) -> dict[str, Any]:
    """Returns counts per edge, staleness, and seconds waited; see `Window.statistics`."""
    return _window(name, group).statistics()


def get_current_created_window_names(*, group: Any = None) -> list[str]:
    """Returns the names of the open windows, sorted."""
    return sorted(_windows(group).open)


def turn_on_win_ops_with_associated_p(*, group: Any = None) -> None:
    """From now on a p goes along with the values of this rank's windows: push-sum's weight.

    It is scaled and added up like them; `win_associated_p` says what it is. Each rank turns it on.
    """
    _carry_p(True, group)


def turn_off_win_ops_with_associated_p(*, group: Any = None) -> None:
    """Ends it; what has been sent keeps its p."""
    _carry_p(False, group)


def win_associated_p(name: str, *, group: Any = None) -> float:
    """Returns this rank's p, 1 at first."""
    return _window(name, group).p


def set_win_associated_p(name: str, p: float, *, group: Any = None) -> None:
    """Sets this rank's p."""
    _window(name, group).p = p


def _one(weight: float | None) -> float:
    return 1.0 if weight is None else weight


def _windows(group: Any) -> GroupWindows:
    return GroupState.of(backend_of(group)).windows


def _window(name: str, group: Any) -> Window:
    windows = _windows(group).open
    if name not in windows:
        raise ValueError(f"there is no window {name!r}; open are {sorted(windows)}")
    return windows[name]


def _carry_p(on: bool, group: Any) -> None:
    windows = _windows(group)
    windows.with_p = on
    for window in windows.open.values():
        window.carry_p(on)
