"""all_reduce: the sum over all ranks, in place, beside Gloo and MPI.

    python benchmarks/all_reduce.py --ranks 4 --bytes 1048576

A sample is a block of calls, timed from the first rank's start to the last one's end; contenders
take turns. algbw = S / t and busbw = algbw * 2 (n - 1) / n with S bytes and n ranks. #wrong counts
elements. Times are taken of zeros, which stay what they are. "bluefog, direct" calls the backend
without torch.distributed around it; "torch alone" calls torch.distributed with a backend that does
nothing, and that torch's flight recorder leaves out (TORCH_FR_BUFFER_SIZE=0: ours as well).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from harness import alone
from harness.benchmark import Benchmark, main
from harness.case import OFFSET, Block, Case, Contender
from harness.measure import Make


def contenders(case: Case) -> dict[str, Make]:
    ways = {
        "bluefog": lambda: torch_distributed(case, case.world.bluefog, case.y),
        "bluefog, own memory": lambda: torch_distributed(case, case.world.bluefog, case.own()),
        "gloo": lambda: torch_distributed(case, case.world.gloo, case.y),
    }
    if case.nbytes <= alone.LARGEST:
        ways["bluefog, direct"] = lambda: direct(case, case.y)
        ways["torch alone"] = lambda: alone.all_reduce_alone(case)
    return ways | ({"mpi": lambda: mpi(case)} if case.world.mpi else {})


def bus(case: Case) -> float:
    return 2 * (case.world.size - 1) / case.world.size


def passes(case: Case) -> dict[str, float]:
    """Each rank sums up one n-th of all tensors, writes it, and then copies all others' sums.

    That is 1 read, 1 / n of a write, 1 read and 1 write.
    """
    return {"bound": 3 + 1 / case.world.size}


def count_wrong(case: Case, call: Callable[[int], object], y: torch.Tensor) -> int:
    case.fill(y)
    call(0)
    count = case.wrong(y, expected(case))
    y.zero_()
    return count


def expected(case: Case) -> list[Block]:
    return [(case.world.size, OFFSET * sum(range(case.world.size)))]


def torch_distributed(case: Case, group: dist.ProcessGroup, y: torch.Tensor) -> Contender:
    def call(step: int) -> None:
        dist.all_reduce(y, group=group)

    return Contender(call, partial(count_wrong, case, call, y))


def direct(case: Case, y: torch.Tensor) -> Contender:
    backend = case.world.bluefog._get_backend(y.device)
    options = dist.AllreduceOptions()
    options.asyncOp = False

    def call(step: int) -> None:
        backend.allreduce([y], options).wait()

    return Contender(call, partial(count_wrong, case, call, y))


def mpi(case: Case) -> Contender:
    in_place, y = case.world.mpi.IN_PLACE, case.y.numpy()
    world = case.world.mpi.COMM_WORLD

    def call(step: int) -> None:
        world.Allreduce(in_place, y)

    return Contender(call, partial(count_wrong, case, call, case.y))


if __name__ == "__main__":
    main(Benchmark(__doc__, contenders, bus, passes, labels=("fully_connected",)))
