"""neighbor_allgather: the in-neighbours' tensors side by side, beside Gloo and MPI.

    python benchmarks/neighbor_allgather.py --ranks 4 --bytes 1048576 --topology ring

A sample is a block of calls, timed from the first rank's start to the last one's end; contenders
take turns. algbw = S / t and busbw = S * d / t with S bytes sent and d in-neighbours. #wrong counts
elements. bluefog returns a new tensor from each call; its rivals have one that they use again.
"""

from collections.abc import Callable
from functools import partial

import torch
from harness import rivals
from harness.benchmark import Benchmark, main
from harness.case import OFFSET, Block, Case, Contender
from harness.measure import Make

import bluefog_pg as bf

TOPOLOGIES = ("exponential", "ring")


def contenders(case: Case) -> dict[str, Make]:
    ways = {
        "bluefog": lambda: bluefog(case, case.x),
        "bluefog, own memory": lambda: bluefog(case, case.fill(case.own())),
        "gloo": lambda: gloo(case),
    }
    with_mpi = {"mpi": lambda: mpi(case), "mpi, neighborhood": lambda: mpi_neighborhood(case)}
    return ways | (with_mpi if case.world.mpi else {})


def bus(case: Case) -> float:
    return case.degree


def passes(case: Case) -> dict[str, float]:
    """d reads and d writes; an ordinary tensor is copied first, to where others can read it."""
    return {"bound": 2 * case.degree, "bound, copied first": 2 * case.degree + 2}


def count_wrong(case: Case, call: Callable[[int], torch.Tensor]) -> int:
    for buffer in case.received:
        buffer.fill_(torch.nan)
    return case.wrong(call(0), expected(case))


def expected(case: Case) -> list[Block]:
    return [(1, OFFSET * rank) for rank in case.rounds[0].sources]


def bluefog(case: Case, x: torch.Tensor) -> Contender:
    group = case.world.bluefog

    def call(step: int) -> torch.Tensor:
        return bf.neighbor_allgather(x, out=case.gathered, group=group)

    return Contender(call, partial(count_wrong, case, call))


def gloo(case: Case) -> Contender:
    return received(case, rivals.over_gloo(case, case.x, case.received))


def mpi(case: Case) -> Contender:
    return received(case, rivals.over_mpi(case, case.x, case.received))


def mpi_neighborhood(case: Case) -> Contender:
    """MPI's own collective for this, on a communicator that knows the graph."""
    at = case.rounds[0]
    graph = case.world.mpi.COMM_WORLD.Create_dist_graph_adjacent([*at.sources], at.destinations)
    x, gathered = case.x.view(torch.uint8).numpy(), case.gathered.view(torch.uint8).numpy()

    def call(step: int) -> torch.Tensor:
        graph.Neighbor_allgather(x, gathered)
        return case.gathered

    return Contender(call, partial(count_wrong, case, call))


def received(case: Case, exchange: rivals.Exchange) -> Contender:
    """What is received is the result."""

    def call(step: int) -> torch.Tensor:
        exchange(step)
        return case.gathered

    return Contender(call, partial(count_wrong, case, call))


if __name__ == "__main__":
    main(Benchmark(__doc__, contenders, bus, passes, TOPOLOGIES))
