"""Say what this installation is made of, and what is wrong with it.

Versions, what the extensions were built for and whether they load, which kernel averages CUDA
tensors, the GPUs and the memory there is. Exit code 1: something is installed that does not work.
"""

import argparse
import fcntl
import json
import os
import platform
import warnings
from collections.abc import Iterator
from typing import NamedTuple


class Fact(NamedTuple):
    name: str
    value: str
    wrong: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    facts = list(_facts())
    if args.json:
        print(json.dumps([fact._asdict() for fact in facts], indent=1))
    else:
        width = max(len(fact.name) for fact in facts)
        for fact in facts:
            print(f"{fact.name:{width}}  {'PROBLEM: ' * fact.wrong}{fact.value}")
    return int(any(fact.wrong for fact in facts))


def _facts() -> Iterator[Fact]:
    import torch

    from bluefog_pg import __version__

    yield Fact("bluefog_pg", __version__)
    yield Fact("Python", f"{platform.python_version()} on {platform.platform()}")
    cuda = torch.version.cuda
    yield Fact("torch", f"{torch.__version__}, {f'for CUDA {cuda}' if cuda else 'without CUDA'}")
    extension = _extension()
    yield extension
    if not extension.wrong:
        yield from _cuda_extension()
    yield _gpus()
    yield _nccl()
    yield _shared_memory()
    yield Fact("processors", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}")
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("BLUEFOG_")]
    yield Fact("environment", " ".join(variables) or "no BLUEFOG_ variables")


def _extension() -> Fact:
    from bluefog_pg._extension import load

    try:
        load()
    except ImportError as error:
        return Fact("extension", str(error), wrong=True)
    from bluefog_pg import _build_info as built

    text = f"loads; built for torch {built.TORCH_VERSION} by {built.COMPILER}, {built.BUILD_TYPE}"
    return Fact("extension", text)


def _cuda_extension() -> Iterator[Fact]:
    """What averages CUDA tensors. torch's own operations are no problem, only slower."""
    import torch

    from bluefog_pg import _build_info as built
    from bluefog_pg._extension import load_cuda

    name = "CUDA extension"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = load_cuda()
    if module is not None:
        kinds = ", ".join(module.architectures())
        yield Fact(name, f"loads; built by nvcc {module.cuda_version()} for {kinds}")
    elif built.CUDA:
        reasons = " ".join(str(warning.message) for warning in caught)
        yield Fact(name, reasons or "is built, but does not load", wrong=True)
    else:
        yield Fact(name, "not built: nvcc of torch's CUDA version was not found, or not wanted")

    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key("bluefog::combine", "CUDA")
    server = "nvcc kernel" if has_kernel else "ATen operations"
    if torch.version.cuda is None:
        server = "not served: this torch is built without CUDA"
    yield Fact("CUDA tensors", server)


def _gpus() -> Fact:
    import torch

    with warnings.catch_warnings():  # of a driver that is too old, or of none
        warnings.simplefilter("ignore")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = []
    for device in range(count):
        major, minor = torch.cuda.get_device_capability(device)
        names.append(f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})")
    return Fact("GPUs", ", ".join(names) or "none visible")


def _nccl() -> Fact:
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_nccl_available()):
        return Fact("NCCL", "not part of this torch")
    version = torch.cuda.nccl.version()
    return Fact("NCCL", ".".join(map(str, version)))


def _shared_memory() -> Fact:
    """Tries what the shm transport does: a sealed file without a name."""
    name = "shared memory"
    try:
        file = os.memfd_create("bluefog_doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(file, 4096)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        finally:
            os.close(file)
    except OSError as error:
        return Fact(name, f"a memfd cannot be made and sealed ({error})", wrong=True)
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Fact(name, f"works, {pages / 2**30:.1f} GiB of memory free")
