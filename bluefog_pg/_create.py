"""Makes the backend object of a process group. Called by torch through `bluefog_pg._autoload`.

Standard collectives are served by torch's own backends, made here by torch's own classes so that
one C++ source fits every torch version: Gloo at once, NCCL at the first CUDA tensor (its
constructor raises on a machine without a GPU).
"""

import atexit
import copy
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, ProcessGroupGloo, Store
from torch.distributed.distributed_c10d import Backend, _DistributedBackendOptions, _world

from bluefog_pg._extension import load, load_cuda
from bluefog_pg.group import unwrapped


def create(dist_backend_opts: _DistributedBackendOptions, pg_options: Any) -> Any:
    """Returns the BluefogBackend for one process group.

    Args:
        dist_backend_opts: what torch says of the group: store, rank, size, timeout, name.
        pg_options: None, `bluefog_pg.BluefogOptions`, or `ProcessGroupNCCL.Options` for the CUDA
            side of the group.

    Raises:
        ImportError: the extension is missing or built for another torch.
        TypeError: pg_options is something else.
    """
    extension = load()
    options = _copy_options(extension, pg_options)
    options._timeout = dist_backend_opts.timeout
    options.group_name = dist_backend_opts.group_id
    options.global_ranks_in_group = dist_backend_opts.global_ranks_in_group
    return make_backend(
        dist_backend_opts.store,
        dist_backend_opts.group_rank,
        dist_backend_opts.group_size,
        options,
    )


def make_backend(store: Store, rank: int, size: int, options: Any) -> Any:
    """Returns the BluefogBackend of `rank` among `size` that meet in `store`; collective."""

    def gloo(prefix: str) -> Backend:
        inner = ProcessGroupGloo(PrefixStore(prefix, store), rank, size, timeout=options._timeout)
        inner.options.group_name = options.group_name
        inner.options.global_ranks_in_group = options.global_ranks_in_group
        return inner

    cpu = gloo("cpu/")
    if not hasattr(Backend, "_ensure_backend_registered"):  # torch < 2.14 wants to be told
        cpu._set_sequence_number_for_group()
    return load().BluefogBackend(
        store,
        rank,
        size,
        options,
        cpu,
        make_cuda=lambda: _make_nccl(PrefixStore("cuda/", store), rank, size, options),
        load_nccl=_load_nccl,
        make_edges=lambda: gloo("edges/"),
        make_child=make_backend,
        pin=_pin,
        unpin=_unpin,
    )


@atexit.register
def _shut_down_groups() -> None:
    """Ends the progress threads of groups that the script has not destroyed.

    A thread that asks for Python's lock once the interpreter is going down ends the process with
    SIGABRT; a progress thread does so to call a future's callback.
    """
    for group in list(_world.pg_map):
        for device in group._device_types:
            backend = unwrapped(group._get_backend(device))
            if isinstance(backend, load().BluefogBackend):
                backend.shutdown()


def _copy_options(extension: Any, given: Any) -> Any:
    if given is None:
        return extension.BluefogOptions()
    if isinstance(given, extension.BluefogOptions):
        return copy.copy(given)
    nccl_options = getattr(getattr(dist, "ProcessGroupNCCL", None), "Options", ())
    if isinstance(given, nccl_options):
        return extension.BluefogOptions(cuda=given)
    raise TypeError(
        f'pg_options for backend "bluefog" must be a bluefog_pg.BluefogOptions (or '
        f"ProcessGroupNCCL.Options for its CUDA side), got {type(given).__name__}"
    )


def _load_nccl() -> Any:
    module = load_cuda()
    if module is None or not hasattr(module, "load_nccl"):
        raise RuntimeError(
            "own_communicator=True needs the module bluefog_pg._C_cuda with NCCL, which this "
            "build has not (`bluefog-pg doctor` says why); leave the option out"
        )
    return module.load_nccl()


def _pin(address: int, nbytes: int) -> None:
    """Lets all GPUs of this process read and write memory of the host."""
    portable_and_mapped = 1 | 2
    library = torch.cuda.cudart()
    torch.cuda.check_error(library.cudaHostRegister(address, nbytes, portable_and_mapped))


def _unpin(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)


def _make_nccl(store: Store, rank: int, size: int, options: Any) -> Backend:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise RuntimeError(
            f"rank {rank} of process group {options.group_name!r} got a CUDA tensor, but "
            f"torch.cuda.is_available() is {torch.cuda.is_available()} and NCCL is "
            f"{'' if dist.is_nccl_available() else 'not '}part of this torch"
        )
    load_cuda()
    nccl = options.cuda or dist.ProcessGroupNCCL.Options()
    nccl._timeout = options._timeout
    nccl.group_name = options.group_name
    nccl.global_ranks_in_group = options.global_ranks_in_group
    if not hasattr(Backend, "_ensure_backend_registered"):  # torch < 2.14
        return dist.ProcessGroupNCCL(store, rank, size, nccl)
    group = _DistributedBackendOptions()
    group.store = store
    group.group_rank = rank
    group.group_size = size
    group.timeout = options._timeout
    group.group_id = options.group_name
    group.global_ranks_in_group = options.global_ranks_in_group
    Backend._ensure_backend_registered("nccl")
    return Backend._plugins["NCCL"].creator_fn(group, nccl)
