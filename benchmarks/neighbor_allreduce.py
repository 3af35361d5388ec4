"""neighbor_allreduce: the weighted average with in-neighbours, beside Gloo and MPI.

    python benchmarks/neighbor_allreduce.py --ranks 4 --bytes 1048576 --topology ring

A sample is a block of calls, timed from the first rank's start to the last one's end; contenders
take turns. algbw = S / t and busbw = S * d / t with S bytes and d in-neighbours. #wrong counts
elements, of all ranks and steps of the topology. "bluefog alone" exchanges nothing. "bluefog, TCP"
goes over the loopback, as between hosts.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from harness import alone, rivals
from harness.benchmark import Benchmark, main
from harness.case import OFFSET, Block, Case, Contender
from harness.measure import Make

import bluefog_pg as bf

TOPOLOGIES = ("exponential", "ring", "one_peer_exponential")


def contenders(case: Case) -> dict[str, Make]:
    ways = {
        "bluefog": lambda: bluefog(case, case.x, case.y),
        "bluefog, own memory": lambda: bluefog(case, case.fill(case.own()), case.own()),
        "bluefog, TCP": lambda: bluefog(case, case.x, case.y, case.world.tcp),
        "gloo": lambda: gloo(case),
    }
    if case.nbytes <= alone.LARGEST:
        ways["bluefog alone"] = lambda: alone.neighbor_allreduce_alone(case)
    return ways | ({"mpi": lambda: mpi(case)} if case.world.mpi else {})


def bus(case: Case) -> float:
    return case.degree


def passes(case: Case) -> dict[str, float]:
    """d + 1 reads and a write; an ordinary tensor is copied first, to where others can read it."""
    return {"bound": case.degree + 2, "bound, copied first": case.degree + 4}


def count_wrong(case: Case, call: Callable[[int], object], y: torch.Tensor) -> int:
    count = 0
    for step in range(len(case.rounds)):
        y.fill_(torch.nan)
        call(step)
        count += case.wrong(y, expected(case, step), roundings(case, step))
    return count


def expected(case: Case, step: int) -> list[Block]:
    at = case.rounds[step]
    weights = {case.world.rank: at.self_weight} | at.sources
    return [(sum(weights.values()), OFFSET * sum(w * rank for rank, w in weights.items()))]


def roundings(case: Case, step: int) -> int:
    """0 where weights are powers of two; else one per weight, product and sum."""
    at = case.rounds[step]
    exact = all(torch.frexp(torch.tensor(w)).mantissa == 0.5 for w in at.sources.values())
    return 0 if exact else 3 + len(at.sources)


def bluefog(
    case: Case, x: torch.Tensor, y: torch.Tensor, group: dist.ProcessGroup | None = None
) -> Contender:
    group = group or case.world.bluefog

    def call(step: int) -> None:
        bf.neighbor_allreduce(x, step=step, out=y, group=group)

    return Contender(call, partial(count_wrong, case, call, y))


def gloo(case: Case) -> Contender:
    exchange = rivals.over_gloo(case, case.x, case.received)

    def call(step: int) -> None:
        rivals.combine_with_torch(case, step, exchange(step))

    return Contender(call, partial(count_wrong, case, call, case.y))


def mpi(case: Case) -> Contender:
    exchange = rivals.over_mpi(case, case.x, case.received)
    with_numpy = rivals.combine_with_numpy(case)

    def small(step: int) -> None:
        exchange(step)
        with_numpy(step)

    def large(step: int) -> None:
        rivals.combine_with_torch(case, step, exchange(step))

    call = small if case.nbytes < rivals.SMALL else large
    return Contender(call, partial(count_wrong, case, call, case.y))


if __name__ == "__main__":
    main(Benchmark(__doc__, contenders, bus, passes, TOPOLOGIES))
