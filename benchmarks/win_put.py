"""win_put and win_update: averages that wait for nobody, beside MPI's one-sided operations.

    python benchmarks/win_put.py --ranks 4 --bytes 1048576 --topology ring

A call puts a tensor to all out-neighbours and averages it with what has come so far. Ranks do not
wait for each other, so a sample, from the first rank's start to the last one's end, is what they
get done side by side. "mpi" is MPI_Put and MPI_Win_flush into shared memory, and a sum;
"two-sided" a neighbor_allreduce. algbw = S / t and busbw = S * d / t with S bytes and d
in-neighbours. #wrong counts elements, of a put by all ranks that an update follows.
"""

import weakref
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from harness import rivals
from harness.benchmark import Benchmark, main
from harness.case import OFFSET, Block, Case, Contender
from harness.measure import Make

import bluefog_pg as bf

TOPOLOGIES = ("exponential", "ring")


def contenders(case: Case) -> dict[str, Make]:
    ways = {
        "bluefog": lambda: bluefog(case),
        "bluefog, two-sided": lambda: two_sided(case),
    }
    return ways | ({"mpi": lambda: mpi(case)} if case.world.mpi else {})


def bus(case: Case) -> float:
    return case.degree


def passes(case: Case) -> dict[str, float]:
    """d copies, a read and a write each; and d + 1 reads and a write."""
    return {"bound": 3 * case.degree + 2}


def bluefog(case: Case) -> Contender:
    value = case.x.clone()
    name = f"{case.label} {case.nbytes}"
    group = case.world.bluefog
    window = bf.Window(
        value, name, zero_init=True, topology=case.label, readable=False, group=group
    )

    def put() -> None:
        window.put(case.x)

    def update() -> torch.Tensor:
        return window.update()

    def begin() -> None:
        value.copy_(case.x)

    contender = one_sided(case, put, update, begin)
    weakref.finalize(contender, window.close)
    return contender


def two_sided(case: Case) -> Contender:
    def update() -> torch.Tensor:
        return bf.neighbor_allreduce(case.x, out=case.y, group=case.world.bluefog)

    return one_sided(case, lambda: None, update, lambda: None)


def mpi(case: Case) -> Contender:
    """Each rank has a place for each of its in-neighbours, which puts there."""
    world, at = case.world.mpi.COMM_WORLD, case.rounds[0]
    places = [list(sources) for sources in case.world.gather(list(at.sources))]
    window = case.world.mpi.Win.Allocate(case.degree * case.x.nbytes, comm=world)
    memory = np.frombuffer(window.tomemory(), dtype=case.x.numpy().dtype)
    received = list(torch.from_numpy(memory).split(case.numel))
    source = case.x.view(torch.uint8).numpy()
    to = [(rank, places[rank].index(case.world.rank) * case.x.nbytes) for rank in at.destinations]
    window.Lock_all()

    def put() -> None:
        for rank, offset in to:
            window.Put(source, rank, target=[offset, case.x.nbytes])
        window.Flush_all()

    def update() -> torch.Tensor:
        window.Sync()
        rivals.combine_with_torch(case, 0, received)
        return case.y

    return one_sided(case, put, update, lambda: None)


def one_sided(
    case: Case,
    put: Callable[[], None],
    update: Callable[[], torch.Tensor],
    begin: Callable[[], None],
) -> Contender:
    """begin: makes this rank's own value the input again."""

    def call(step: int) -> None:
        put()
        update()

    def count_wrong() -> int:
        begin()
        put()
        dist.barrier()
        count = case.wrong(update(), expected(case), roundings(case))
        dist.barrier()
        return count

    return Contender(call, count_wrong)


def expected(case: Case) -> list[Block]:
    weights = {case.world.rank: case.rounds[0].self_weight} | case.rounds[0].sources
    return [(sum(weights.values()), OFFSET * sum(w * rank for rank, w in weights.items()))]


def roundings(case: Case) -> int:
    return 3 + len(case.rounds[0].sources)


if __name__ == "__main__":
    main(Benchmark(__doc__, contenders, bus, passes, TOPOLOGIES))
