"""run_ranks: call a function once per rank, in processes of its own, and collect what it returns.

    import torch, torch.distributed as dist
    from ranks import run_ranks

    def sum_of_ranks(rank, nproc, scale):  # at module level: the children import it by name
        dist.init_process_group("bluefog")
        x = torch.tensor([float(scale * rank)])
        dist.all_reduce(x)
        return x.item()  # pickled by value: tensors, floats, dicts, ...

    def test_sum():
        assert run_ranks(sum_of_ranks, 3, 10) == [30.0, 30.0, 30.0]

Children are forked from a server that has torch imported, about 0.1 s each. RANK, WORLD_SIZE and
the rest are set as torchrun sets them, and the store lives in the parent, so that no port is
guessed and a dead rank 0 does not take it away. As under torchrun, a second init_process_group on
that store needs another TORCHELASTIC_RESTART_COUNT. A default group left behind is destroyed.
"""

import faulthandler
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing import connection
from pathlib import Path

import torch
import torch.distributed as dist

PRELOAD = [
    "torch",
    "torch.distributed",
    "torch._dynamo",  # that every optimizer loads, in 3 s
    "numpy",
    "networkx",
    "scipy.sparse.csgraph",
    "scipy.special",
    "pytest",
]  # pytest: it is the parent's main script
TESTS = Path(__file__).parent
AFTER_FAILURE = 5.0  # s that the other ranks get to fail as well, once one has
EXIT = 30.0  # s from the last result to the end of all processes


class RankError(AssertionError):
    """What went wrong in which rank, with each rank's traceback or, where it hung, its stacks."""


def run_ranks(fn, nproc, *args, timeout=60, env=None, dies=()):
    """Returns [fn(rank, nproc, *args) for each rank], each called in a process of its own.

    fn is a module-level function; its arguments and result are pickled by value. timeout: seconds
    for all ranks together, after which they are killed. env: extra environment. dies: the ranks
    that a signal must kill during the test; None stands in for their results.
    Raises RankError if a rank raises, dies, does not die as told, is late, or does not exit.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    task = _pack(fn, args)
    procs, conns = [], []
    with tempfile.TemporaryDirectory() as stacks:
        try:
            for rank in range(nproc):
                conn, child_conn = context.Pipe(duplex=False)
                environment = os.environ | _rendezvous(rank, nproc, store.port) | (env or {})
                given = (rank, nproc, task, environment, child_conn, f"{stacks}/{rank}", timeout)
                proc = context.Process(target=_child, args=given, daemon=True)
                proc.start()
                child_conn.close()  # the child has the only one left: its death reads as EOF
                procs.append(proc)
                conns.append(conn)
            outcomes = _collect(conns, timeout, dies)
            _finish(procs, outcomes, Path(stacks), timeout, dies)
        finally:
            for proc in procs:
                proc.kill()
                proc.join()
    return [outcomes[rank][1] for rank in range(nproc)]


def _rendezvous(rank, nproc, port):
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 connects to our store like everyone else
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _pack(fn, args):
    module = sys.modules[fn.__module__]
    if getattr(module, fn.__name__, None) is not fn:
        raise TypeError(f"run_ranks needs a function at the top level of a module, got {fn!r}")
    homes = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(TESTS)
    }
    homes[module.__name__] = module.__file__
    return module.__name__, homes, fn.__name__, pickle.dumps(args)


def _unpack(name, homes, fn_name, args):
    sys.meta_path.append(_TestModules(homes))
    return getattr(importlib.import_module(name), fn_name), pickle.loads(args)


class _TestModules(importlib.abc.MetaPathFinder):
    """Finds test modules by path: pytest's importmode=importlib puts no folder on sys.path."""

    def __init__(self, homes):
        self._homes = homes

    def find_spec(self, name, path=None, target=None):
        if name in self._homes:
            return importlib.util.spec_from_file_location(name, self._homes[name])
        if any(home.startswith(f"{name}.") for home in self._homes):
            return importlib.machinery.ModuleSpec(name, None, is_package=True)
        return None


def _child(rank, nproc, task, environment, conn, stacks, timeout):
    gc.freeze()  # what the forkserver has imported needs no collecting, nor copying for it
    os.environ.clear()  # the forkserver's is as old as the first test
    os.environ.update(environment)
    signal.alarm(int(timeout) + 60)  # ends us even where the parent was killed
    stacks_file = open(stacks, "w")  # noqa: SIM115 (faulthandler writes to it until we are gone)
    faulthandler.enable(file=stacks_file)
    faulthandler.register(signal.SIGUSR1, file=stacks_file, all_threads=True)
    try:
        dist.set_debug_level_from_env()  # torch was imported before the environment was set
        torch.set_num_threads(1)
        fn, args = _unpack(*task)
        result = fn(rank, nproc, *args)
        if dist.is_initialized():
            dist.destroy_process_group()
        # Frees groups that reference cycles hold, DDP's for one: a thread of gloo that drops a
        # tensor while Python shuts down aborts the process.
        gc.collect()
        conn.send_bytes(pickle.dumps((True, result)))
    except BaseException:
        conn.send_bytes(pickle.dumps((False, traceback.format_exc())))
        sys.stderr.flush()
        os._exit(1)  # with a group in an unknown state, a normal exit might hang


def _collect(conns, timeout, dies):
    """rank -> (True, result) or (False, text), without the ranks that said nothing in time."""
    outcomes, deadline = {}, time.monotonic() + timeout
    pending = {conn: rank for rank, conn in enumerate(conns)}
    while pending:
        ready = connection.wait(list(pending), max(0, deadline - time.monotonic()))
        if not ready:
            break
        for conn in ready:
            rank = pending.pop(conn)
            try:
                outcomes[rank] = pickle.loads(conn.recv_bytes())
            except EOFError:
                outcomes[rank] = (rank in dies, None)
            if not outcomes[rank][0]:
                deadline = min(deadline, time.monotonic() + AFTER_FAILURE)
    return outcomes


def _finish(procs, outcomes, stacks, timeout, dies):
    """Waits for the processes to end; raises RankError unless each rank did what it was told to."""
    good = {rank for rank, (ok, _) in outcomes.items() if ok}
    failed = len(good) < len(procs)
    deadline = time.monotonic() + EXIT
    for proc in procs:
        proc.join(0.5 if failed else max(0, deadline - time.monotonic()))
    alive = [rank for rank, proc in enumerate(procs) if proc.exitcode is None]
    for rank in alive:
        os.kill(procs[rank].pid, signal.SIGUSR1)  # asks for its stacks
    time.sleep(0.5 if alive else 0)
    complaints = []
    for rank, proc in enumerate(procs):
        if failed and rank in good and proc.exitcode in (None, 0):
            continue  # it may be stuck at exit only because of the others
        if problem := _problem(proc.exitcode, outcomes.get(rank), rank in dies, timeout):
            stack = (stacks / str(rank)).read_text()  # empty, unless it crashed or we asked
            complaints.append(f"--- rank {rank} of {len(procs)} {problem}\n{stack}")
    if complaints:
        heading = f"{len(complaints)} of {len(procs)} ranks failed"
        raise RankError("\n".join([heading, *complaints]))


def _problem(exitcode, outcome, dies, timeout):
    if outcome is None:
        return f"gave no result within {timeout} s, or {AFTER_FAILURE} s after another rank failed:"
    ok, value = outcome
    if not ok and value is not None:
        return f"raised:\n{value}"
    if exitcode is None:
        return f"does not exit, {EXIT} s after the last result:"
    if dies and exitcode >= 0:
        return f"was to be killed by a signal, but exited with code {exitcode}"
    if not dies and exitcode != 0:
        return f"died with exit code {exitcode} (a negative one is a signal)"
    return None
