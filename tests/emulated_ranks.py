"""run_ranks, as tests/ranks.py has it, for ranks with emulated GPUs (tests/emulated.py).

    from emulated_ranks import run_ranks

    def sum_of_ranks(rank, nproc):  # at module level, as there
        torch.cuda.set_device(rank)
        dist.init_process_group("bluefog")
        ...

    results, printed = run_ranks(sum_of_ranks, 4)

The libraries of the emulated GPU have to be there when a process starts. So another process has
them, of which there is one for all tests, and forks the ranks; there a call costs as little as in
tests/ranks.py.
"""

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair

import emulated
import ranks

ANSWER = 60.0  # s that the other process has beyond the ranks' own time, to start for one


def run_ranks(fn, nproc, *args, gpus=None, timeout=60, env=None, dies=()):
    """Returns [fn(rank, nproc, *args) for each rank], and what they have printed.

    gpus: how many each of them sees; one for each by default. The others: as for ranks.run_ranks,
    which raises RankError, also here.
    """
    env = {"EMULATED_GPUS": str(gpus or nproc)} | (env or {})
    return _Server.get().call(ranks._pack(fn, args), nproc, timeout, env, dies)


class _Server:
    """The process in which ranks.run_ranks is called."""

    _only: "_Server | None" = None

    @classmethod
    def get(cls):
        if cls._only is None:
            cls._only = cls()
        return cls._only

    def __init__(self):
        ours, theirs = socketpair()
        self._output = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 (till our end)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import emulated_ranks as us; us.serve({theirs.fileno()})"],
                cwd=Path(__file__).parent,
                env=emulated.environment() | {"PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        self._pipe = Connection(ours.detach())
        atexit.register(self._end)

    def call(self, task, nproc, timeout, *rest):
        before = os.fstat(self._output.fileno()).st_size
        self._pipe.send((task, nproc, timeout, *rest))
        answers = self._pipe.poll(timeout + ANSWER)
        printed = Path(self._output.name).read_bytes()[before:].decode(errors="replace")
        if not answers:
            self._end()
            raise ranks.RankError(f"no answer from the process of the ranks:\n{printed}")
        good, value = pickle.loads(self._pipe.recv_bytes())
        if not good:
            raise ranks.RankError(f"{value}\n--- they printed:\n{printed}")
        return value, printed

    def _end(self):
        type(self)._only = None
        self._pipe.close()  # which ends it
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._output.close()


def serve(file):
    """What the process does until the other end is closed."""
    pipe = Connection(file)
    while True:
        try:
            task, nproc, timeout, env, dies = pipe.recv()
        except EOFError:
            return
        try:
            fn, args = ranks._unpack(*task)
            results = ranks.run_ranks(fn, nproc, *args, timeout=timeout, env=env, dies=dies)
            pipe.send_bytes(pickle.dumps((True, results)))
        except BaseException as error:
            pipe.send_bytes(pickle.dumps((False, str(error) or repr(error))))
