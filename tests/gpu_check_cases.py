"""Checks that find something wrong, for tests/test_gpu_check.py: it runs the functions that take no
argument on an emulated GPU."""

from types import SimpleNamespace
from unittest import mock

import torch
from gpu import kernels
from gpu.device import Device
from gpu.launch import run_ranks
from gpu.rows import emit

from bluefog_pg._extension import load_cuda


def ranks_that_fail():
    for row in run_ranks("ranks", bad, 2, seconds=60):
        emit(row)


def bad(rank):
    def fail():
        raise ValueError("on purpose")

    def fail_alone():
        if rank.rank == 1:
            raise ValueError("alone")
        return 0

    rank.check("all fail", fail)
    rank.check("all are wrong", lambda: 1 + rank.rank, of="2")
    rank.check("one fails", fail_alone)
    if rank.rank == 1:
        rank.check("never", lambda: 0)


def kernel_that_writes_outside():
    load_cuda()  # defines the operator
    combine = torch.ops.bluefog.combine

    def in_excess(outputs, *others):
        start = outputs[0].storage_offset()
        if start:  # not the one that is compared with
            torch.as_strided(outputs[0], [1], [1], start - 1).fill_(5)
        combine(outputs, *others)

    case = kernels.Case(torch.float32, torch.bfloat16, [7, 100], 2, offset=1)
    for name, operator in (("combine", combine), ("in excess", in_excess)):
        with mock.patch.object(torch.ops, "bluefog", SimpleNamespace(combine=operator)):
            far, different = kernels.count(Device(), case)
        emit({"check": name, "far": far, "different": different})
