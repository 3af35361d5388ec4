"""run_ranks notices each way in which a rank can go wrong: a test that uses it can fail."""

import os
import signal
import threading
import time

import pytest
import ranks
import torch
import torch.distributed as dist
from ranks import RankError, run_ranks


def all_reduce(rank, nproc, scale):
    dist.init_process_group("gloo")
    x = torch.tensor([scale * rank])
    dist.all_reduce(x)
    return x


def test_results_are_in_the_order_of_ranks():
    assert run_ranks(all_reduce, 3, 10) == [torch.tensor([30])] * 3


def raise_on_rank_1(rank, nproc):
    dist.init_process_group("gloo")
    if rank == 1:
        raise ValueError("a bug")
    dist.barrier()


def test_an_exception_comes_with_its_rank_and_traceback():
    with pytest.raises(RankError, match=r"rank 1 of 2 raised(.|\n)*ValueError: a bug"):
        run_ranks(raise_on_rank_1, 2)


def hang_on_rank_1(rank, nproc):
    if rank == 1:
        time.sleep(600)


def test_a_hanging_rank_is_killed_and_shows_its_stack():
    with pytest.raises(RankError, match=r"rank 1 of 2 gave no result(.|\n)*in hang_on_rank_1"):
        run_ranks(hang_on_rank_1, 2, timeout=2)


def die_on_rank_0(rank, nproc):
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rank


def test_a_death_is_an_error_unless_it_was_expected():
    with pytest.raises(RankError, match="rank 0 of 2 died with exit code -9"):
        run_ranks(die_on_rank_0, 2)
    assert run_ranks(die_on_rank_0, 2, dies=[0]) == [None, 1]
    with pytest.raises(RankError, match="rank 1 of 2 was to be killed"):
        run_ranks(die_on_rank_0, 2, dies=[0, 1])


def leave_a_thread(rank, nproc):
    threading.Thread(target=time.sleep, args=[600]).start()


def test_a_process_that_stays_is_an_error(monkeypatch):
    monkeypatch.setattr(ranks, "EXIT", 1.0)
    with pytest.raises(RankError, match="rank 0 of 1 does not exit"):
        run_ranks(leave_a_thread, 1)


def debug_level(rank, nproc):
    return dist.get_debug_level().name


def test_environment():
    assert run_ranks(debug_level, 1, env={"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}) == ["DETAIL"]
    assert run_ranks(debug_level, 1) == ["OFF"]


def test_only_a_function_that_children_can_import():
    with pytest.raises(TypeError, match="top level of a module"):
        run_ranks(lambda rank, nproc: None, 1)
