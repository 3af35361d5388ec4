"""Decentralized data parallelism for PyTorch: a torch.distributed backend with neighbor averaging.

    torch.distributed.init_process_group("bluefog")

gives a process group that does what Gloo (CPU) and NCCL (CUDA) do and averages over the edges of a
weighted graph. Importing this package registers that name and nothing more: the functions below,
networkx and the C++ extension are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bluefog_pg._autoload import register as _register

if TYPE_CHECKING:
    from bluefog_pg._C import BluefogOptions
    from bluefog_pg.ddp import DecentralizedDataParallel
    from bluefog_pg.errors import (
        AbortedError,
        BluefogError,
        MismatchError,
        NeighborTimeoutError,
        PeerLostError,
    )
    from bluefog_pg.ops import get_topology, neighbor_allgather, neighbor_allreduce, set_topology
    from bluefog_pg.topology import (
        Schedule,
        exponential,
        fully_connected,
        mesh2d,
        one_peer_exponential,
        ring,
        star,
    )

__version__ = "0.1.0"

# Public name -> the module it lives in.
_HOME = {
    "AbortedError": "errors",
    "BluefogError": "errors",
    "BluefogOptions": "_C",
    "DecentralizedDataParallel": "ddp",
    "MismatchError": "errors",
    "NeighborTimeoutError": "errors",
    "PeerLostError": "errors",
    "Schedule": "topology",
    "exponential": "topology",
    "fully_connected": "topology",
    "get_topology": "ops",
    "mesh2d": "topology",
    "neighbor_allgather": "ops",
    "neighbor_allreduce": "ops",
    "one_peer_exponential": "topology",
    "ring": "topology",
    "set_topology": "ops",
    "star": "topology",
}
_MODULES = {"ddp", "errors", "ops", "topology"}

__all__ = [
    "AbortedError",
    "BluefogError",
    "BluefogOptions",
    "DecentralizedDataParallel",
    "MismatchError",
    "NeighborTimeoutError",
    "PeerLostError",
    "Schedule",
    "exponential",
    "fully_connected",
    "get_topology",
    "mesh2d",
    "neighbor_allgather",
    "neighbor_allreduce",
    "one_peer_exponential",
    "ring",
    "set_topology",
    "star",
]


def __getattr__(name: str) -> Any:
    """Loads a public name at its first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"bluefog_pg.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'bluefog_pg' has no attribute {name!r}")
    if _HOME[name] == "_C":
        from bluefog_pg._extension import load

        value = getattr(load(), name)
    else:
        value = getattr(import_module(f"bluefog_pg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})


_register()
