"""Loads the C++ extensions, after checking that they were built for the torch that is imported."""

import warnings
from functools import cache
from types import ModuleType

REBUILD = "run `pip install --no-build-isolation --no-deps .` in the bluefog_pg source folder"


@cache
def load() -> ModuleType:
    """Returns the module `bluefog_pg._C`.

    Raises:
        ImportError: the extension is missing, does not load, or was built for another minor version
            of torch. The classes it derives from change their layout between minor versions, so
            this is checked before the shared library is opened.
    """
    import torch

    try:
        from bluefog_pg import _build_info
    except ImportError as error:
        raise ImportError(f"The bluefog_pg extension is not built: {REBUILD}.") from error
    if _minor(torch.__version__) != _minor(_build_info.TORCH_VERSION):
        raise ImportError(
            f"bluefog_pg was built for torch {_build_info.TORCH_VERSION}, but the torch imported "
            f"is {torch.__version__}: to rebuild it, {REBUILD}."
        )
    try:
        from bluefog_pg import _C
    except ImportError as error:
        raise ImportError(
            f"The bluefog_pg extension does not load ({error}): to rebuild it, {REBUILD}."
        ) from error
    return _C


@cache
def load_cuda() -> ModuleType | None:
    """Returns the module `bluefog_pg._C_cuda`, which gives `bluefog::combine` its CUDA kernel,
    and a group its own NCCL communicator where that is asked for.

    None where it was not built (no nvcc, or a torch without CUDA), or does not load, of which a
    warning says why, once: torch's own operations then do its work.

    Raises:
        ImportError: as `load`.
    """
    load()  # defines the operator
    from bluefog_pg import _build_info

    if not _build_info.CUDA:
        return None
    try:
        from bluefog_pg import _C_cuda
    except ImportError as error:
        warnings.warn(
            f"bluefog_pg was built with a CUDA kernel, which does not load ({error}). Averages of "
            f"CUDA tensors take several of torch's own operations instead; to rebuild it, "
            f"{REBUILD}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return _C_cuda


def _minor(version: str) -> list[str]:
    """Returns ["2", "15"] for "2.15.0+cu132"."""
    return str(version).split(".")[:2]
