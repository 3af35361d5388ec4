"""What there is, asked for by BlueFog's names."""

import torch.distributed as dist


def mpi_threads_supported() -> bool:
    """False: there is no MPI. Operations may be called from any one thread of a process."""
    return False


def unified_mpi_window_model_supported() -> bool:
    """False: there is no MPI."""
    return False


def nccl_built() -> bool:
    """Whether this torch has NCCL."""
    return dist.is_nccl_available()


def set_skip_negotiate_stage(value: bool) -> None:
    """Without effect: operations are never negotiated, all ranks start them in the same order."""


def get_skip_negotiate_stage() -> bool:
    """True: there is no such stage."""
    return True
