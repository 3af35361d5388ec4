"""One-sided windows, with BlueFog's conventions: see `bluefog_pg.windows` for what they do.

Making and freeing a window is collective. All others are calls of one rank, which wait for nobody
but where a mutex is asked for. What is put on another host has arrived after the next `barrier`.
Forms that end on `_nonblocking` return a handle for `win_wait` and `win_poll`. A wrong argument is
a ValueError; functions without a result return True.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import torch

from bluefog_pg import windows
from bluefog_pg.torch.context import current
from bluefog_pg.torch.weights import DstWeights, SrcWeights

_logger = logging.getLogger("bluefog_pg.torch")
_tensors: dict[str, torch.Tensor] = {}
_pending: dict[int, Any] = {}
_numbers = count()


def win_create(tensor: torch.Tensor, name: str, zero_init: bool = False) -> bool:
    """Makes a window on `tensor`, which `win_update` changes in place. Collective.

    The topology cannot be set while there are windows.

    Args:
        tensor: contiguous, of a dtype that `bluefog_pg.Window` has.
        zero_init: mailboxes hold zeros at first, and not this rank's tensor.

    Returns:
        False where there is a window of this name already, and it says so in the log.

    Raises:
        MismatchError: ranks bring other dtypes, shapes or names. It is a ValueError too.
    """
    exists = name in get_current_created_window_names()
    try:
        windows.win_create(tensor.detach(), name, zero_init, group=current().group)
    except ValueError:
        if not exists:
            raise
        _logger.error("win_create: there is a window %r already", name)
        return False
    _tensors[name] = tensor
    current().resources.callback(_forget, name, current().group)
    return True


def win_free(name: str | None = None) -> bool:
    """Frees a window, or all of them. Collective. False where there is none of this name."""
    names = get_current_created_window_names() if name is None else [name]
    for each in names:
        if each not in get_current_created_window_names():
            _logger.error("win_free: there is no window %r", each)
            return False
        windows.win_free(each, group=current().group)
        _tensors.pop(each, None)
    return True


def win_put(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: DstWeights | None = None,
    require_mutex: bool = False,
) -> bool:
    """Puts dst_weights[j] * tensor into the mailboxes at j; then tensor *= self_weight."""
    return win_wait(win_put_nonblocking(tensor, name, self_weight, dst_weights, require_mutex))


def win_put_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: DstWeights | None = None,
    require_mutex: bool = False,
) -> int:
    """`win_put`; the tensor must not change until `win_wait`."""
    given = tensor.detach(), name, self_weight, dst_weights, require_mutex
    return _handle(windows.win_put_nonblocking(*given, group=current().group))


def win_accumulate(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: DstWeights | None = None,
    require_mutex: bool = False,
) -> bool:
    """Adds dst_weights[j] * tensor to the mailboxes at j; then tensor *= self_weight."""
    return win_wait(
        win_accumulate_nonblocking(tensor, name, self_weight, dst_weights, require_mutex)
    )


def win_accumulate_nonblocking(
    tensor: torch.Tensor,
    name: str,
    self_weight: float | None = None,
    dst_weights: DstWeights | None = None,
    require_mutex: bool = False,
) -> int:
    """`win_accumulate`; the tensor must not change until `win_wait`."""
    given = tensor.detach(), name, self_weight, dst_weights, require_mutex
    return _handle(windows.win_accumulate_nonblocking(*given, group=current().group))


def win_get(name: str, src_weights: SrcWeights | None = None, require_mutex: bool = False) -> bool:
    """Puts src_weights[j] * (the value of j) into this rank's own mailboxes of j."""
    return win_wait(win_get_nonblocking(name, src_weights, require_mutex))


def win_get_nonblocking(
    name: str, src_weights: SrcWeights | None = None, require_mutex: bool = False
) -> int:
    """`win_get`."""
    group = current().group
    return _handle(windows.win_get_nonblocking(name, src_weights, require_mutex, group=group))


def win_update(
    name: str,
    self_weight: float | None = None,
    neighbor_weights: SrcWeights | None = None,
    reset: bool = False,
    clone: bool = False,
    require_mutex: bool = False,
) -> torch.Tensor:
    """Returns self_weight x + sum of neighbor_weights[j] * mailbox[j]; x becomes that.

    Args:
        self_weight, neighbor_weights: both or none; default: those of the topology.
        reset: leave zeros in these mailboxes.
        clone: return a new tensor, and leave the window's as it is.
    """
    given = name, self_weight, neighbor_weights, reset, clone, require_mutex
    result = windows.win_update(*given, group=current().group)
    return result if clone else _tensors.get(name, result)


def win_update_then_collect(name: str, require_mutex: bool = True) -> torch.Tensor:
    """Adds all mailboxes to x and empties them; returns x."""
    result = windows.win_update_then_collect(name, require_mutex, group=current().group)
    return _tensors.get(name, result)


def win_poll(handle: int) -> bool:
    """Whether a nonblocking call is over, so that `win_wait` returns at once."""
    return handle not in _pending or bool(_pending[handle].done())


def win_wait(handle: int) -> bool:
    """Waits for a nonblocking call; False, with a warning in the log, for an unknown handle."""
    pending = _pending.pop(handle, None)
    if pending is None:
        _logger.warning("win_wait: there is no handle %r, or it has been waited for", handle)
        return False
    pending.wait()
    return True


def win_mutex(
    name: str, for_self: bool = False, ranks: Sequence[int] | None = None
) -> AbstractContextManager[None]:
    """Holds mutexes of this rank's mailboxes at `ranks`, or, for_self, of theirs here."""
    return windows.win_mutex(name, for_self, ranks, group=current().group)


def win_lock(name: str) -> AbstractContextManager[None]:
    """An epoch in which nobody who asks for mutexes writes this rank's mailboxes."""
    return windows.win_lock(name, group=current().group)


def get_win_version(name: str) -> dict[int, int]:
    """Returns {in-neighbour: puts and gets that no update has used yet}."""
    return windows.get_win_version(name, group=current().group)


def get_current_created_window_names() -> list[str]:
    """Returns the names of all windows, sorted."""
    return windows.get_current_created_window_names(group=current().group)


def win_associated_p(name: str) -> float:
    """Returns this rank's p, the push-sum weight that goes with the window's value."""
    return windows.win_associated_p(name, group=current().group)


def turn_on_win_ops_with_associated_p() -> None:
    """From now on p goes along with the values of this rank's windows."""
    windows.turn_on_win_ops_with_associated_p(group=current().group)


def turn_off_win_ops_with_associated_p() -> None:
    """Ends that."""
    windows.turn_off_win_ops_with_associated_p(group=current().group)


def _handle(pending: Any) -> int:
    handle = next(_numbers)
    _pending[handle] = pending
    return handle


def _forget(name: str, group: Any) -> None:
    """At shutdown, without a word to the others."""
    _tensors.pop(name, None)
    windows.win_close(name, group=group)
