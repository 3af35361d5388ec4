"""Starts a benchmark's ranks: with mpirun where MPI is there, else with torchrun."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

_MPI_VERSION = "from mpi4py import MPI; print(MPI.Get_library_version())"
_NO_MPI = (
    "# No rows of MPI: they need mpi4py and OpenMPI (apt-get install openmpi-bin libopenmpi-dev)."
)


def is_rank() -> bool:
    """Whether this process is one of those that `start_ranks` has started."""
    return "BENCHMARK_RANK" in os.environ


def start_ranks(counts: Iterable[int], environment: Mapping[str, str]) -> int:
    """Runs this script again with each number of ranks; returns the worst exit status.

    environment: what the ranks' has more than ours.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with_mpi = _has_openmpi()
    if not with_mpi:
        print(_NO_MPI, flush=True)
    status = 0
    for ranks in counts:
        command = (_mpirun if with_mpi else _torchrun)(ranks) + sys.argv
        status = max(status, abs(_run(command, os.environ | environment | _for_ranks())))
    return status


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    """Returns the exit status; if this process is told to end, the ranks end before it does."""
    with subprocess.Popen(command, env=environment) as launcher:
        try:
            return launcher.wait()
        except BaseException:
            launcher.terminate()
            raise


def adopt_mpi_ranks() -> bool:
    """Under mpirun: gives torch.distributed the variables that torchrun would set."""
    if "OMPI_COMM_WORLD_RANK" not in os.environ:
        return False
    for name in ("RANK", "LOCAL_RANK"):
        os.environ[name] = os.environ[f"OMPI_COMM_WORLD_{name}"]
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ[name] = os.environ[f"OMPI_COMM_WORLD_{name.replace('WORLD_', '')}"]
    return True


def _has_openmpi() -> bool:
    if not shutil.which("mpirun"):
        return False
    probe = subprocess.run([sys.executable, "-c", _MPI_VERSION], capture_output=True, text=True)
    return probe.returncode == 0 and "Open MPI" in probe.stdout


def _mpirun(ranks: int) -> list[str]:
    options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    return ["mpirun", *options, "-n", str(ranks), sys.executable]


def _torchrun(ranks: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--master_port", str(_free_port()), "--nproc_per_node", str(ranks)]


def _for_ranks() -> dict[str, str]:
    """One thread per rank; the address is for mpirun, torchrun sets its own."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return address | {"OMP_NUM_THREADS": "1", "BENCHMARK_RANK": "yes"}


def _free_port() -> int:
    """One below those that the kernel gives away: mpirun itself listens on some before ranks do."""
    ports = range(20000, 32000)
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(ports)))
            return probe.getsockname()[1]
