"""What a program can do once a rank, or the store, is gone: docs/faults.md says that it can."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import attempt, averages, start, store

import bluefog_pg as bf
from bluefog_pg import PeerLostError

DOCS = Path(__file__).parents[1] / "docs" / "faults.md"


def step_of(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(4, 10)).square().mean().backward()
    optimizer.step()


def go_on_in_a_smaller_group(rank, n):
    """Everybody is everybody's neighbour, so all learn of the death, and know who is left."""
    start("shm", 30)
    torch.manual_seed(rank)
    victim, left = 2, [0, 1, 3]
    module = torch.nn.Linear(10, 10)
    model = bf.DecentralizedDataParallel(module, topology="fully_connected")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(3):
        step_of(model, optimizer)
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    error = None
    for _ in range(3):
        error = error or attempt(step_of, model, optimizer)
    assert type(error) is PeerLostError and f"rank {victim} was lost: its process ended" in str(
        error
    )
    del model

    group = dist.new_group(left, backend="bluefog", use_local_synchronization=True)
    averages(left.index(rank), len(left), group=group)
    dist.all_reduce(ones := torch.ones(5), group=group)
    assert (ones == 3).all()
    model = bf.DecentralizedDataParallel(
        module, topology="one_peer_exponential", process_group=group, init_sync=False
    )
    before = module.weight.detach().clone()
    for _ in range(20):
        step_of(model, optimizer)
    assert module.weight.isfinite().all() and not torch.equal(module.weight, before)
    assert model.consensus_distance() < 1e-2
    model.finalize()
    return module.weight.detach()


def test_survivors_go_on_in_a_group_of_their_own():
    a, b, _, c = run_ranks(go_on_in_a_smaller_group, 4, dies=[2])
    assert torch.equal(a, b) and torch.equal(a, c)


def train_until_death(rank, n):
    """On a ring of five, rank 2 dies between two steps; rank 4 is two edges from it."""
    start("shm", 30)
    model = bf.DecentralizedDataParallel(torch.nn.Linear(10, 10), topology="ring")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    talk = store("talk")
    for _ in range(3):
        step_of(model, optimizer)
    if rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    before = model.module.weight.detach().clone()
    error = attempt(step_of, model, optimizer)
    if rank in (1, 3):
        assert type(error) is PeerLostError and "rank 2 was lost: its process ended" in str(error)
        assert torch.equal(model.module.weight, before)  # averages arrive beside parameters
    else:  # whose neighbours fail, and serve them all the same
        assert error is None and not torch.equal(model.module.weight, before)
    talk.set(f"over/{rank}", "")
    talk.wait([f"over/{r}" for r in range(n) if r != 2])


def test_training_fails_at_the_neighbours_of_the_dead_only():
    run_ranks(train_until_death, 5, dies=[2])


STORE = """
import sys, torch.distributed as dist
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
sys.stdin.read()
"""


def store_dies(rank, n, port, pid):
    """Rank 0 kills the process that holds the store, once all are connected."""
    group_store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("bluefog", store=group_store, rank=rank, world_size=n)
    averages(rank, n)
    dist.barrier()
    if rank == 0:
        os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        averages(rank, n)  # sets a topology, too
    dist.all_reduce(ones := torch.ones(1000))
    assert (ones == n).all()
    error = attempt(dist.new_group)
    assert isinstance(error, RuntimeError), error


def test_the_store_is_needed_for_new_groups_only():
    with subprocess.Popen(
        [sys.executable, "-c", STORE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            run_ranks(store_dies, 3, int(server.stdout.readline()), server.pid)
        finally:
            server.kill()
    assert server.returncode == -signal.SIGKILL


EXAMPLE = next(
    block
    for block in re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.M | re.S)
    if "STEPS" in block
)
DEATH = """
import os, signal, torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
torch.manual_seed(0)
steps = []
def dies_once(*_):
    steps.append(0)
    if len(steps) == 25:
        os.kill(os.getpid(), signal.SIGKILL)
if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    register_optimizer_step_pre_hook(dies_once)
"""


def undisturbed(rank, n, folder):
    os.chdir(folder)
    torch.manual_seed(0)
    exec(compile(EXAMPLE, "faults.md", "exec"), {"__name__": "__main__"})


@pytest.mark.timeout(600)  # it starts eight processes anew
def test_a_restart_by_torchrun_goes_on_from_the_last_step_that_all_have_saved(tmp_path):
    for name in ("whole", "restarted"):
        (tmp_path / name).mkdir()
    run_ranks(undisturbed, 4, str(tmp_path / "whole"))
    (tmp_path / "restarted" / "train.py").write_text(DEATH + EXAMPLE)
    launch = "torch.distributed.run --standalone --nproc-per-node 4 --max-restarts 1 train.py"
    # torch's agent would else keep the store, and with it the addresses of the processes before.
    env = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launch.split()],
        cwd=tmp_path / "restarted",
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rank 1 was lost: its process ended" in done.stderr
    assert sorted(re.findall(r"rank (\d) began at (\d+)", done.stdout)) == [
        (str(rank), "20") for rank in range(4)
    ]
    for rank in range(4):
        a, b = (torch.load(tmp_path / x / f"rank{rank}-40.pt") for x in ("whole", "restarted"))
        for name in ("module.weight", "module.bias"):
            assert torch.equal(a["model"][name], b["model"][name])
