"""Decentralized data parallelism for PyTorch: a torch.distributed backend with neighbor averaging.

    torch.distributed.init_process_group("bluefog")

gives a process group that does what Gloo (CPU) and NCCL (CUDA) do and averages over the edges of a
weighted graph. Importing this package loads nothing more: the functions below, torch, networkx and
the C++ extension are loaded at first use.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bluefog_pg._autoload import register as _register

if TYPE_CHECKING:
    from bluefog_pg._C import BluefogOptions
    from bluefog_pg.ddp import DecentralizedDataParallel, GradScaler
    from bluefog_pg.errors import (
        AbortedError,
        BluefogError,
        MismatchError,
        NeighborTimeoutError,
        PeerLostError,
    )
    from bluefog_pg.ops import (
        empty,
        get_topology,
        neighbor_allgather,
        neighbor_allreduce,
        set_topology,
    )
    from bluefog_pg.probe import probe_links
    from bluefog_pg.topology import (
        Schedule,
        analyze,
        auto,
        balanced_tree,
        base_graph,
        ceca,
        choose,
        de_bruijn,
        dissemination,
        equi_dyn,
        equi_static,
        erdos_renyi,
        exponential,
        fully_connected,
        hierarchical_exponential,
        hyper_cuboid,
        hypercube,
        inner_outer_exponential,
        inner_outer_ring,
        mesh2d,
        metropolis_hastings,
        one_peer_exponential,
        one_peer_hypercube,
        random_matching,
        random_regular,
        ring,
        star,
        symmetric_exponential,
        torus2d,
    )
    from bluefog_pg.windows import (
        Window,
        get_current_created_window_names,
        get_win_version,
        set_win_associated_p,
        turn_off_win_ops_with_associated_p,
        turn_on_win_ops_with_associated_p,
        win_accumulate,
        win_accumulate_nonblocking,
        win_associated_p,
        win_create,
        win_fence,
        win_flush,
        win_free,
        win_get,
        win_get_nonblocking,
        win_lock,
        win_mutex,
        win_poll,
        win_put,
        win_put_nonblocking,
        win_statistics,
        win_update,
        win_update_then_collect,
        win_wait,
    )

__version__ = "0.1.0"

# Public name -> the module it lives in.
_HOME = {
    "AbortedError": "errors",
    "BluefogError": "errors",
    "BluefogOptions": "_C",
    "DecentralizedDataParallel": "ddp",
    "GradScaler": "ddp",
    "MismatchError": "errors",
    "NeighborTimeoutError": "errors",
    "PeerLostError": "errors",
    "Schedule": "topology",
    "Window": "windows",
    "analyze": "topology",
    "auto": "topology",
    "balanced_tree": "topology",
    "base_graph": "topology",
    "ceca": "topology",
    "choose": "topology",
    "de_bruijn": "topology",
    "dissemination": "topology",
    "empty": "ops",
    "equi_dyn": "topology",
    "equi_static": "topology",
    "erdos_renyi": "topology",
    "exponential": "topology",
    "fully_connected": "topology",
    "get_current_created_window_names": "windows",
    "get_topology": "ops",
    "get_win_version": "windows",
    "hierarchical_exponential": "topology",
    "hyper_cuboid": "topology",
    "hypercube": "topology",
    "inner_outer_exponential": "topology",
    "inner_outer_ring": "topology",
    "mesh2d": "topology",
    "metropolis_hastings": "topology",
    "neighbor_allgather": "ops",
    "neighbor_allreduce": "ops",
    "one_peer_exponential": "topology",
    "one_peer_hypercube": "topology",
    "probe_links": "probe",
    "random_matching": "topology",
    "random_regular": "topology",
    "ring": "topology",
    "set_topology": "ops",
    "set_win_associated_p": "windows",
    "star": "topology",
    "symmetric_exponential": "topology",
    "torus2d": "topology",
    "turn_off_win_ops_with_associated_p": "windows",
    "turn_on_win_ops_with_associated_p": "windows",
    "win_accumulate": "windows",
    "win_accumulate_nonblocking": "windows",
    "win_associated_p": "windows",
    "win_create": "windows",
    "win_fence": "windows",
    "win_flush": "windows",
    "win_free": "windows",
    "win_get": "windows",
    "win_get_nonblocking": "windows",
    "win_lock": "windows",
    "win_mutex": "windows",
    "win_poll": "windows",
    "win_put": "windows",
    "win_put_nonblocking": "windows",
    "win_statistics": "windows",
    "win_update": "windows",
    "win_update_then_collect": "windows",
    "win_wait": "windows",
}
_MODULES = {"algorithms", "ddp", "errors", "ops", "probe", "simulate", "topology", "windows"}

__all__ = [
    "AbortedError",
    "BluefogError",
    "BluefogOptions",
    "DecentralizedDataParallel",
    "GradScaler",
    "MismatchError",
    "NeighborTimeoutError",
    "PeerLostError",
    "Schedule",
    "Window",
    "analyze",
    "auto",
    "balanced_tree",
    "base_graph",
    "ceca",
    "choose",
    "de_bruijn",
    "dissemination",
    "empty",
    "equi_dyn",
    "equi_static",
    "erdos_renyi",
    "exponential",
    "fully_connected",
    "get_current_created_window_names",
    "get_topology",
    "get_win_version",
    "hierarchical_exponential",
    "hyper_cuboid",
    "hypercube",
    "inner_outer_exponential",
    "inner_outer_ring",
    "mesh2d",
    "metropolis_hastings",
    "neighbor_allgather",
    "neighbor_allreduce",
    "one_peer_exponential",
    "one_peer_hypercube",
    "probe_links",
    "random_matching",
    "random_regular",
    "ring",
    "set_topology",
    "set_win_associated_p",
    "star",
    "symmetric_exponential",
    "torus2d",
    "turn_off_win_ops_with_associated_p",
    "turn_on_win_ops_with_associated_p",
    "win_accumulate",
    "win_accumulate_nonblocking",
    "win_associated_p",
    "win_create",
    "win_fence",
    "win_flush",
    "win_free",
    "win_get",
    "win_get_nonblocking",
    "win_lock",
    "win_mutex",
    "win_poll",
    "win_put",
    "win_put_nonblocking",
    "win_statistics",
    "win_update",
    "win_update_then_collect",
    "win_wait",
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


# torch registers us at the end of its import, unless that is over or told not to: a program that
# needs no torch (the command line, topologies) is then not made to load it.
if "torch" in sys.modules or os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
    _register()
