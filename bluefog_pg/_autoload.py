"""Registers the backend "bluefog" with torch.distributed.

Both entry points name this module, and torch calls the first one at the end of *every* `import
torch` in the environment. So this is a leaf that imports the standard library only, loads nothing
native, may be called any number of times and in the middle of `import bluefog_pg`, and turns every
failure into a warning: it must never be the reason why torch cannot be imported.
"""

import sys
import warnings
from typing import Any

NAME = "bluefog"


def register() -> None:
    """Makes "bluefog" known to `torch.distributed.init_process_group`, for CPU and CUDA tensors.

    Does nothing when that is done already, or when torch is built without distributed. Warns, and
    leaves things as they are, when another package has taken the name. Never raises.
    """
    try:
        import torch.distributed as dist

        if not dist.is_available():
            return
        if NAME not in dist.Backend.backend_list:
            dist.Backend.register_backend(
                NAME, create_backend, extended_api=True, devices=["cpu", "cuda"]
            )
        elif (owner := _owner(dist.Backend)) != __name__:
            _warn(
                f'The torch.distributed backend name "{NAME}" is taken by {owner}: bluefog_pg is '
                "not registered. Remove one of the two packages."
            )
    except Exception as error:
        _warn(f"bluefog_pg could not be registered with torch.distributed: {error!r}")


def create_backend(dist_backend_opts: Any, pg_options: Any) -> Any:
    """Makes the backend of one process group; torch calls it, see `bluefog_pg._create.create`."""
    from bluefog_pg import _create

    return _create.create(dist_backend_opts, pg_options)


def _owner(backend_class: Any) -> str:
    """Returns the name of the module whose function creates the backend registered as NAME."""
    plugin = backend_class._plugins.get(NAME.upper())
    return getattr(getattr(plugin, "creator_fn", None), "__module__", None) or "another package"


def _warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except Warning:  # python -W error turns warnings into exceptions
        print(f"warning: {message}", file=sys.stderr)
