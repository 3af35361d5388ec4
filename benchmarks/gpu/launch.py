"""Ranks of a check: processes that share the one GPU, with a time limit, none of which stays."""

import gc
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from typing import Any

import torch
import torch.distributed as dist

from gpu.device import Device
from gpu.rows import Row, checked, failed

AFTER_FAILURE = 8.0  # s that the other ranks get to say something, once one has failed
FOR_OTHERS = timedelta(seconds=5)  # to fail as well

# NCCL wants a GPU for each rank. It lets several have the same one if it is told to, from 2.30 on,
# or if it takes them for ranks of different hosts.
NCCL_WAYS: dict[str, Callable[[int], dict[str, str]]] = {
    "NCCL_MULTI_RANK_GPU_ENABLE": lambda rank: {"NCCL_MULTI_RANK_GPU_ENABLE": "1"},
    "NCCL_HOSTID": lambda rank: {"NCCL_HOSTID": f"gpu-check-{rank}"},
}
_ON_ALL_RANKS = {
    "NCCL_SOCKET_IFNAME": "lo",  # there may be no other one
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "NCCL_MAX_CTAS": "2",  # of each rank's, so that there is room for the others'
}


def nccl_way() -> str:
    """The way that the part "nccl" found to work, or the one for this version of NCCL."""
    chosen = os.environ.get("GPU_CHECK_NCCL")
    if chosen:
        return chosen
    return "NCCL_MULTI_RANK_GPU_ENABLE" if torch.cuda.nccl.version() >= (2, 30) else "NCCL_HOSTID"


@dataclass
class Rank:
    """One of them, in its process."""

    rank: int
    size: int
    device: Device
    _store: Any
    _pipe: Any

    def check(self, name: str, function: Callable[[], int], **details: Any) -> None:
        """Reports how many values function() found to be wrong, of all ranks together.

        Where it raises on all ranks alike, the next check goes on; else the ranks have lost each
        other, and it raises.
        """
        try:
            row = checked(name, function(), **details)
            self._store.set(f"{name}/{self.rank}", "well")
        except Exception as error:
            self._pipe.send(("row", failed(name, _text(error), **details)))
            self._store.set(f"{name}/{self.rank}", "failed")
            if not self._all_failed(name):
                raise
            return
        self._pipe.send(("row", row))

    def _all_failed(self, name: str) -> bool:
        keys = [f"{name}/{rank}" for rank in range(self.size)]
        try:
            self._store.wait(keys, FOR_OTHERS)
        except Exception:
            return False
        return all(self._store.get(key) == b"failed" for key in keys)

    def tell(self, row: Row) -> None:
        """Reports a row of this rank alone."""
        self._pipe.send(("row", row))


def run_ranks(
    name: str,
    function: Callable[..., None],
    size: int,
    *args: Any,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> list[Row]:
    """Calls function(Rank, *args) in `size` processes, each a rank of a default group.

    Returns a row for each check, and a failed one, called `name`, where a rank did not end well.
    """
    context = multiprocessing.get_context("spawn")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes, pipes = [], []
    for rank in range(size):
        pipe, theirs = context.Pipe(duplex=False)
        ours = _rendezvous(rank, size, store.port) | dict(environment or {})
        ours |= _ON_ALL_RANKS | NCCL_WAYS[nccl_way()](rank)
        given = (function, rank, size, args, store.port, ours, theirs, seconds)
        process = context.Process(target=_child, args=given, daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        processes.append(process)
        pipes.append(pipe)
    try:
        rows, problems = _collect(pipes, time.monotonic() + seconds)
        for process in processes:
            process.join(1.0 if problems else 20.0)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return _merged(rows, size) + [failed(name, problem, ranks=size) for problem in problems]


def _collect(pipes: list[Any], deadline: float) -> tuple[list[Row], list[str]]:
    """Returns the rows of all ranks, and what went wrong."""
    rows, problems = [], []
    pending = {pipe: rank for rank, pipe in enumerate(pipes)}
    while pending:
        ready = connection.wait(list(pending), max(0.0, deadline - time.monotonic()))
        if not ready:
            problems.append(f"ranks {sorted(pending.values())} did not end in time")
            break
        for pipe in ready:
            try:
                kind, content = pipe.recv()
            except EOFError:
                kind, content = "failed", "it died"
            if kind == "row":
                rows.append(content)
                continue
            rank = pending.pop(pipe)
            if kind == "failed":
                problems.append(f"rank {rank}: {content}")
                deadline = min(deadline, time.monotonic() + AFTER_FAILURE)
    return rows, problems


def _merged(rows: list[Row], size: int) -> list[Row]:
    """Makes one row of those of a check, which count what is wrong on each rank."""
    merged, by_check = [], defaultdict(list)
    for row in rows:
        if "wrong" in row or "error" in row:
            by_check[row["check"]].append(row)
        else:
            merged.append(row)
    for check, of_ranks in by_check.items():
        ours = ("check", "ok", "wrong", "error")
        details = {key: value for key, value in of_ranks[0].items() if key not in ours}
        errors = [row["error"] for row in of_ranks if "error" in row]
        if errors:
            merged.append(failed(check, errors[0], ranks=size, **details))
        elif len(of_ranks) < size:
            merged.append(failed(check, f"only {len(of_ranks)} ranks came to it", ranks=size))
        else:
            wrong = sum(row["wrong"] for row in of_ranks)
            merged.append(checked(check, wrong, ranks=size, **details))
    return merged


def _rendezvous(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _child(
    function: Callable[..., None],
    rank: int,
    size: int,
    args: tuple[Any, ...],
    port: int,
    environment: Mapping[str, str],
    pipe: Any,
    seconds: float,
) -> None:
    signal.alarm(int(seconds) + 30)  # ends us where the parent could not
    os.environ.update(environment)
    warnings.filterwarnings("ignore", "the weights of rank")
    try:
        torch.cuda.set_device(0)
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // size))
        store = dist.TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
        dist.init_process_group(
            "bluefog",
            store=dist.PrefixStore("world", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=60),
        )
        us = Rank(rank, size, Device(), dist.PrefixStore("checks", store), pipe)
        function(us, *args)
        us.device.synchronize()
        gc.collect()  # graphs and models, before the communicators that they use
        dist.destroy_process_group()
        gc.collect()
        pipe.send(("done", None))
    except BaseException as error:
        with suppress(Exception):
            pipe.send(("failed", _text(error)))
        os._exit(1)  # with a group in an unknown state, a normal exit might hang


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-2000:]
