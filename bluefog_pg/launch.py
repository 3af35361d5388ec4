"""The command ``bfrun``: BlueFog's launcher, translated to torchrun.

    bfrun -np 4 python train.py
    bfrun -np 8 -H host1:4,host2:4 python train.py

On this host alone it becomes ``torchrun --standalone``. With other hosts, one torchrun per host is
started, through ssh, with the same Python, in the same folder, and with this environment's
BLUEFOG_* and similar variables. Ranks meet at MASTER_ADDR (default: the first host) and MASTER_PORT
(default: 29500).
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bluefog_pg import __version__

FORWARDED = ("BLUEFOG_", "CUDA_", "GLOO_", "NCCL_", "OMP_", "PYTHONPATH", "TORCH_", "VIRTUAL_ENV")
"""Starts of the names of variables that remote hosts get."""

Host = tuple[str, int]  # name, number of processes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: that of this process) and returns its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.command:
        parser.error("no command to run: bfrun -np 4 python train.py")
    try:
        hosts = fill(_hosts(args), args.num_proc)
        commands = commands_for(hosts, args.command)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    os.environ.update(_environment(args))
    launches = [
        command if is_here(host) else over_ssh(host, command, args.ssh_port)
        for (host, _), command in zip(hosts, commands, strict=True)
    ]
    if args.verbose:
        for command in launches:
            print(shlex.join(command), file=sys.stderr, flush=True)
    return run(launches)


def fill(hosts: Sequence[Host], count: int) -> list[Host]:
    """Returns the first hosts whose slots are enough for `count` processes, the last one cut.

    Raises:
        ValueError: there are not enough.
    """
    if count < 1:
        raise ValueError(f"-np must be at least 1, got {count}")
    filled: list[Host] = []
    for name, slots in hosts:
        left = count - sum(taken for _, taken in filled)
        if left > 0:
            filled.append((name, min(slots, left)))
    found = sum(slots for _, slots in hosts)
    if found < count:
        raise ValueError(f"-np {count} processes do not fit into the {found} slots of {hosts}")
    return filled


def commands_for(hosts: Sequence[Host], command: Sequence[str]) -> list[list[str]]:
    """Returns the torchrun command of each host, which runs `command` as it is."""
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    program = ["--no-python", *command]
    if len(hosts) == 1 and is_here(hosts[0][0]):
        return [[*torchrun, "--standalone", f"--nproc-per-node={hosts[0][1]}", *program]]
    first = socket.gethostname() if is_here(hosts[0][0]) else hosts[0][0]
    address = os.environ.get("MASTER_ADDR", first)
    master = f"--master-addr={address}", f"--master-port={os.environ.get('MASTER_PORT', 29500)}"
    return [
        [
            *torchrun,
            f"--nnodes={len(hosts)}",
            f"--node-rank={node}",
            f"--nproc-per-node={count}",
            *master,
            *program,
        ]
        for node, (_, count) in enumerate(hosts)
    ]


def over_ssh(host: str, command: Sequence[str], port: int | None) -> list[str]:
    """Returns the command that runs `command` on another host, in this folder."""
    variables = [f"{n}={v}" for n, v in sorted(os.environ.items()) if n.startswith(FORWARDED)]
    there = f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(['env', *variables, *command])}"
    # -tt: the remote processes end with the connection.
    return ["ssh", "-tt", *(["-p", str(port)] if port else []), host, there]


def is_here(host: str) -> bool:
    """Whether a name is this host's."""
    return host in ("localhost", "127.0.0.1", socket.gethostname())


def run(commands: Sequence[Sequence[str]]) -> int:
    """Runs all of them at once, until all have ended; returns the first exit code that is not 0.

    Where one fails, or this process is interrupted, the others are terminated.
    """
    processes = [subprocess.Popen(command) for command in commands]
    with ThreadPoolExecutor(len(processes)) as threads:
        try:
            for ended in as_completed([threads.submit(process.wait) for process in processes]):
                if code := ended.result():
                    return code
            return 0
        finally:
            for process in processes:
                process.terminate()  # does nothing to those that have ended


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bfrun",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-v", "--version", action="version", version=__version__)
    add("-np", "--num-proc", type=int, required=True, help="number of processes, of all hosts")
    hosts = parser.add_mutually_exclusive_group()
    hosts.add_argument("-H", "--hosts", help="host1:processes,host2:processes,...")
    hosts.add_argument("-hostfile", "--hostfile", help='a file with lines "host slots=processes"')
    add("-p", "--ssh-port", type=int, help="of the other hosts")
    add("--network-interface", help="its name, for Gloo and NCCL")
    add("--timeline-filename", help="start of the names of Chrome traces, one per rank")
    add("--verbose", action="store_true", help="print the torchrun commands")
    add("--use-infiniband", action="store_true", help="without effect: NCCL uses what there is")
    add("--extra-mpi-flags", help="without effect: there is no MPI")
    add("--prefix", help="without effect: there is no MPI")
    add("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    return parser


def _hosts(args: argparse.Namespace) -> list[Host]:
    if args.hosts:
        pairs = [host.rpartition(":") for host in args.hosts.split(",")]
    elif args.hostfile:
        lines = map(str.strip, Path(args.hostfile).read_text().splitlines())
        pairs = [line.partition(" slots=") for line in lines if line and line[0] != "#"]
    else:
        return [("localhost", max(args.num_proc, 0))]
    for name, _, slots in pairs:
        if not (name.strip() and slots.strip().isdecimal()):
            given = f"-H {args.hosts}" if args.hosts else args.hostfile
            raise ValueError(
                f"each host needs its number of processes, host:2 or host slots=2, in {given}"
            )
    return [(name.strip(), int(slots)) for name, _, slots in pairs]


def _environment(args: argparse.Namespace) -> dict[str, str]:
    variables = {}
    if args.network_interface:
        variables |= dict.fromkeys(
            ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), args.network_interface
        )
    if args.timeline_filename:
        variables["BLUEFOG_TIMELINE"] = args.timeline_filename
    return variables


if __name__ == "__main__":
    sys.exit(main())
