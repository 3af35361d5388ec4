"""bfrun: what it makes of its options, and that it runs, here and, through ssh, elsewhere."""

import json
import os
import socket
import subprocess
import sys

import pytest

from bluefog_pg import launch

PROGRAM = """
import json, os, sys
import torch, bluefog_pg.torch as bf
bf.init()
total = bf.allreduce(torch.tensor([bf.rank()]), average=False).item()
names = ["BLUEFOG_TIMELINE", "GLOO_SOCKET_IFNAME", "GROUP_RANK", "BLUEFOG_MARK"]
seen = {name: os.environ.get(name) for name in names}
place = [bf.rank(), bf.size(), bf.local_rank(), bf.machine_rank() if bf.is_homogeneous() else None]
with open(f"{sys.argv[1]}{bf.rank()}", "w") as file:
    json.dump([total, place, seen], file)
"""


def bfrun(*arguments, cwd, **env):
    command = [sys.executable, "-m", "bluefog_pg.launch", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, cwd=cwd, env=os.environ | env
    )


def results(folder, n):
    return [json.loads((folder / f"out{rank}").read_text()) for rank in range(n)]


@pytest.fixture
def program(tmp_path):
    (tmp_path / "x.py").write_text(PROGRAM)
    return [sys.executable, "x.py", "out"]


def test_runs_on_this_host(program, tmp_path):
    options = ["--verbose", "--network-interface", "lo", "--timeline-filename", "trace_"]
    done = bfrun("-np", "2", *options, *program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = {"BLUEFOG_TIMELINE": "trace_", "GLOO_SOCKET_IFNAME": "lo", "GROUP_RANK": "0"}
    for rank, result in enumerate(results(tmp_path, 2)):
        assert result == [1, [rank, 2, rank, 0], seen | {"BLUEFOG_MARK": None}]
        assert (tmp_path / f"trace_{rank}.json").stat().st_size > 100
    torchrun = f"-m torch.distributed.run --standalone --nproc-per-node=2 --no-python {program[0]}"
    assert torchrun in done.stderr


def test_runs_on_other_hosts(program, tmp_path):
    """With an ssh that runs here what it is told to, in an empty environment, and says so."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4" = "-tt -p 22 elsewhere" ] || exit 9\n'
        'echo "$5" > ../ssh.txt\nexec env -i PATH=/usr/bin:/bin sh -c "$5"\n'
    )
    ssh.chmod(0o755)
    (tmp_path / "hosts").write_text("# two\nlocalhost slots=2\nelsewhere slots=4\n")
    folder = tmp_path / "with space"
    folder.mkdir()
    (tmp_path / "x.py").rename(folder / "x.py")
    env = {
        "PATH": f"{ssh.parent}:{os.environ['PATH']}",
        "BLUEFOG_MARK": "it's here",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    options = ["-np", "3", "--ssh-port", "22", "--hostfile", "../hosts"]
    done = bfrun(*options, *program, cwd=folder, **env)
    assert done.returncode == 0, done.stderr
    places = [[0, 3, 0, None], [1, 3, 1, None], [2, 3, 0, None]]
    for place, result in zip(places, results(folder, 3), strict=True):
        assert result[:2] == [3, place]
        assert result[2]["BLUEFOG_MARK"] == "it's here"
    assert [result[2]["GROUP_RANK"] for result in results(folder, 3)] == ["0", "0", "1"]
    assert "--nnodes=2 --node-rank=1 --nproc-per-node=1" in (tmp_path / "ssh.txt").read_text()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_one_failure_ends_the_others():
    endless = [sys.executable, "-c", "import signal; signal.pause()"]
    assert launch.run([endless, [sys.executable, "-c", "raise SystemExit(7)"], endless]) == 7


def test_hosts_are_filled_in_order():
    assert launch.fill([("a", 2), ("b", 4), ("c", 1)], 5) == [("a", 2), ("b", 3)]
    with pytest.raises(ValueError, match="do not fit into the 2 slots"):
        launch.fill([("a", 2)], 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-np", "2"], "no command to run"),
        (["python", "x.py"], "-np"),
        (["-np", "0", "python"], "at least 1"),
        (["-np", "9", "-H", "a:2,b:2", "python"], "do not fit"),
        (["-np", "2", "-H", "a,b", "python"], "host:2"),
        (["-np", "2", "--hostfile", "no-such-file", "python"], "no-such-file"),
        (["-np", "2", "-H", "a:2", "--hostfile", "f", "python"], "not allowed with"),
    ],
)
def test_wrong_usage(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        launch.main(arguments)
    assert end.value.code == 2 and words in capsys.readouterr().err
