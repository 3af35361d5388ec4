"""The CUDA extension (csrc/cuda/module.cc). Load it with `bluefog_pg._extension.load_cuda()`."""

from typing import Any

def architectures() -> list[str]:
    """What kernels are there for: "sm_90" is machine code, "compute_75" is translated."""

def cuda_version() -> str:
    """The version of the nvcc that compiled them: "13.0"."""

# Both are absent where no nccl.h was found to build by, and raise where torch has loaded no NCCL.

def load_nccl() -> Any:
    """For BluefogBackend's own communicator."""

def nccl_version() -> tuple[int, int, int]:
    """Of the NCCL that torch has loaded: (2, 28, 9)."""
