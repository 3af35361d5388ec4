"""Neighbor operations of 2, 4 and 8 ranks against their formulas."""

from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx
import torch
import torch.distributed as dist

import bluefog_pg as bf
from bluefog_pg.topology import recv_weights
from gpu.launch import Rank, run_ranks
from gpu.reference import FLOATS, count_different, count_wrong, values
from gpu.rows import emit, parser, status

SHAPES = [(), (1,), (0,), (7,), (3, 5), (2501,)]
GATHERED = [
    torch.int64,
    torch.bool,
    torch.uint8,
    torch.float8_e4m3fn,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
]
NARROWED = [
    (torch.float32, torch.bfloat16),
    *((own, payload) for own in FLOATS[:3] for payload in (torch.float8_e4m3fn, torch.float8_e5m2)),
]
LARGE = (1 << 20) + 3
STEPS = 3  # of a topology that changes


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    arguments.add_argument("--seconds", type=float, default=60, help="for each number of ranks")
    args = arguments.parse_args()
    rows = []
    for size in args.ranks:
        name = f"neighbor operations of {size} ranks"
        rows += [emit(row) for row in run_ranks(name, checks, size, seconds=args.seconds)]
    return status(rows)


def checks(rank: Rank) -> None:
    own = dist.new_group(backend="bluefog", pg_options=bf.BluefogOptions(own_communicator=True))
    for way, group in (("", None), (", own communicator", own)):
        operations = Operations(rank, group)
        for name, check in operations.all():
            rank.check(f"{name}, {rank.size} ranks{way}", check)
    if rank.size % 2 == 0 and rank.size > 2:
        rank.check(f"hierarchical, {rank.size} ranks", lambda: hierarchical(rank))


def random_weights(n: int) -> nx.DiGraph:
    """Edges and weights by chance; the weights of a rank do not sum to 1."""
    draw = torch.Generator().manual_seed(n)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    for source in range(n):
        for rank in range(n):
            if torch.rand((), generator=draw) < 0.6:
                weight = float(torch.randn((), generator=draw, dtype=torch.float64))
                graph.add_edge(source, rank, weight=weight)
    return graph


class Operations:
    """The checks, each of which returns how many values are wrong on this rank."""

    def __init__(self, rank: Rank, group: Any) -> None:
        self._device, self._group = rank.device, group
        self._rank, self._size = rank.rank, rank.size

    def all(self) -> Iterator[tuple[str, Callable[[], int]]]:
        n = self._size
        topologies = {
            "ring": bf.ring(n),
            "exponential": bf.exponential(n),
            "one-peer exponential": bf.one_peer_exponential(n),
            "star": bf.star(n),
            "random weights": random_weights(n),
        }
        for name, topology in topologies.items():
            yield f"neighbor_allreduce, {name}", lambda topology=topology: self._average(topology)
        yield "neighbor_allreduce, weights of a call", self._weights_of_a_call
        yield "neighbor_allreduce, in place, out, strides", self._places
        yield "neighbor_allreduce, narrower payloads", self._narrow
        yield "neighbor_allreduce, many at once", self._many
        yield "neighbor_allgather", self._gather
        yield "neighbor_allreduce among collectives", self._among_collectives

    # ---- Averages

    def _average(self, topology: bf.Schedule | nx.DiGraph) -> int:
        bf.set_topology(topology, group=self._group)
        changes = isinstance(topology, bf.Schedule)
        wrong = 0
        for step in range(STEPS if changes else 1):
            terms = self._terms(topology(step) if changes else topology)
            lists = [(shape, dtype) for dtype in FLOATS for shape in SHAPES]
            results = bf.neighbor_allreduce(
                [self._mine(shape, dtype, step) for shape, dtype in lists], group=self._group
            )
            for result, (shape, dtype) in zip(results, lists, strict=True):
                wrong += count_wrong(result, self._inputs(terms, shape, dtype, step))
            for dtype in FLOATS:
                work = bf.neighbor_allreduce(
                    self._mine((2501,), dtype, step), step=step, group=self._group, async_op=True
                )
                work.wait()
                (result,) = work.result()
                wrong += count_wrong(result, self._inputs(terms, (2501,), dtype, step))
        return wrong

    def _weights_of_a_call(self) -> int:
        """Each sends to the next two ranks, and scales what it sends."""
        n, wrong = self._size, 0
        scales = {distance: scale for distance, scale in ((1, 2.0), (2, -0.75)) if distance < n}
        weights = {distance: 0.5 / distance for distance in scales}
        for dtype in FLOATS:
            result = bf.neighbor_allreduce(
                self._mine((2501,), dtype, 7),
                self_weight=0.3,
                src_weights={(self._rank - d) % n: weight for d, weight in weights.items()},
                dst_weights={(self._rank + d) % n: scale for d, scale in scales.items()},
                group=self._group,
            )
            terms = [(self._rank, 0.3)]
            terms += [((self._rank - d) % n, weights[d] * scales[d]) for d in scales]
            inputs = self._inputs(terms, (2501,), dtype, 7)
            wrong += count_wrong(result, inputs, sender_scales=True)
        return wrong

    def _places(self) -> int:
        graph = bf.ring(self._size)
        bf.set_topology(graph, group=self._group)
        terms, wrong = self._terms(graph), 0
        for dtype in FLOATS:
            expected = self._inputs(terms, (30, 50), dtype, 1)
            x = self._mine((30, 50), dtype, 1)
            out = torch.full_like(x, 77)
            bf.neighbor_allreduce(x, out=out, group=self._group)
            strided = x.t().contiguous().t()
            of_strided = bf.neighbor_allreduce(strided, group=self._group)
            unaligned = torch.full([1501], 77, dtype=dtype, device=self._device.torch)
            bf.neighbor_allreduce(
                x, out=unaligned[1:].view(30, 50), group=self._group, async_op=True
            ).wait()
            bf.neighbor_allreduce(x, out=x, group=self._group)
            for result in (x, out, of_strided, unaligned[1:].view(30, 50)):
                wrong += count_wrong(result, expected)
            wrong += int(unaligned[0] != 77)
        return wrong

    def _narrow(self) -> int:
        """Rounded values are sent, and their differences averaged; also in memory of bf.empty."""
        graph = bf.exponential(self._size)
        bf.set_topology(graph, group=self._group)
        (_, own), *sources = self._terms(graph)
        received, wrong = sum(weight for _, weight in sources), 0
        shared = bf.empty(2501, dtype=torch.float32, device=self._device.torch, group=self._group)
        for dtype, payload in NARROWED:
            mine = values((2501,), dtype, 8, self._rank)
            terms = [(own + received, mine), (-received, mine.to(payload))]
            terms += [(w, values((2501,), dtype, 8, j).to(payload)) for j, w in sources]
            places = [mine.to(self._device.torch, copy=True)]
            if dtype is torch.float32:
                places.append(shared.copy_(mine))
            for x in places:
                work = bf.neighbor_allreduce(
                    x, payload_dtype=payload, group=self._group, async_op=True
                )
                work.wait()
                wrong += count_wrong(work.result()[0], terms)
                bf.neighbor_allreduce(x, out=x, payload_dtype=payload, group=self._group)
                wrong += count_wrong(x, terms)
            far = torch.full((9,), 1e9, device=self._device.torch).to(dtype)  # float8's largest
            bf.neighbor_allreduce(far, out=far, payload_dtype=payload, group=self._group)
            wrong += int(far.isnan().sum())
        return wrong

    def _many(self) -> int:
        """Large ones, of which several are under way, and of which each uses the one before."""
        graph = bf.ring(self._size)
        bf.set_topology(graph, group=self._group)
        terms = self._terms(graph)
        xs = [self._mine((LARGE,), torch.float32, 20 + i) for i in range(4)]
        works = [bf.neighbor_allreduce(x, group=self._group, async_op=True) for x in xs]
        wrong = 0
        for i, work in enumerate(works):
            work.wait()
            inputs = self._inputs(terms, (LARGE,), torch.float32, 20 + i)
            wrong += count_wrong(work.result()[0], inputs)
        # Averaged 60 times over a doubly stochastic graph, all ranks hold the mean.
        x = self._mine((1000,), torch.float64, 30)
        for _ in range(60):
            x = bf.neighbor_allreduce(x, group=self._group)
        mean = sum(values((1000,), torch.float64, 30, j) for j in range(self._size)) / self._size
        slowest = 10 * 0.81**60  # 1/3 + 2/3 cos 45° = 0.805 in a ring of 8, where it is slowest
        return wrong + int(((x.cpu() - mean).abs() > slowest).sum())

    # ---- Others

    def _gather(self) -> int:
        n, wrong = self._size, 0
        for topology in (bf.ring(n), bf.exponential(n), bf.star(n)):
            bf.set_topology(topology, group=self._group)
            sources = list(recv_weights(topology, self._rank)[1])
            for dtype in GATHERED:
                result = bf.neighbor_allgather(self._mine((3, 5), dtype, 3), group=self._group)
                wrong += count_different(result.cpu(), self._gathered(sources, dtype))
            out = torch.full([3 * len(sources), 5], 77.0, device=self._device.torch)
            bf.neighbor_allgather(
                self._mine((3, 5), torch.float32, 3), out=out, group=self._group, async_op=True
            ).wait()
            wrong += count_different(out.cpu(), self._gathered(sources, torch.float32))
        before, after = (self._rank - 1) % n, (self._rank + 1) % n
        result = bf.neighbor_allgather(
            self._mine((3, 5), torch.int64, 3),
            src_ranks=[before],
            dst_ranks=[after],
            group=self._group,
        )
        return wrong + count_different(result.cpu(), self._gathered([before], torch.int64))

    def _among_collectives(self) -> int:
        """Ten rounds of both, and nothing waits for the host."""
        graph = bf.exponential(self._size)
        bf.set_topology(graph, group=self._group)
        terms, results = self._terms(graph), []
        for step in range(10):
            y = bf.neighbor_allreduce(self._mine((501,), torch.float64, step), group=self._group)
            total = y.clone()
            dist.all_reduce(total, group=self._group)
            results.append((y, total))
        wrong = 0
        for step, (y, total) in enumerate(results):
            wrong += count_wrong(y, self._inputs(terms, (501,), torch.float64, step))
            everybody = [values((501,), torch.float64, step, j) for j in range(self._size)]
            averages = [
                sum(w * everybody[j] for j, w in self._terms(graph, i)) for i in range(self._size)
            ]
            wrong += int((~((total.cpu() - sum(averages)).abs() < 1e-12)).sum())
        return wrong

    # ---- Inputs

    def _mine(self, shape: tuple[int, ...], dtype: torch.dtype, step: int) -> torch.Tensor:
        return values(shape, dtype, step, self._rank).to(self._device.torch)

    def _terms(self, graph: nx.DiGraph, rank: int | None = None) -> list[tuple[int, float]]:
        rank = self._rank if rank is None else rank
        own, sources = recv_weights(graph, rank)
        return [(rank, own), *sources.items()]

    def _inputs(
        self, terms: list[tuple[int, float]], shape: tuple[int, ...], dtype: torch.dtype, step: int
    ) -> list[tuple[float, torch.Tensor]]:
        return [(weight, values(shape, dtype, step, j)) for j, weight in terms]

    def _gathered(self, sources: list[int], dtype: torch.dtype) -> torch.Tensor:
        if not sources:
            return torch.empty([0, 5], dtype=dtype)
        bits = [values((3, 5), dtype, 3, j).view(torch.uint8) for j in sources]  # cat has no float8
        return torch.cat(bits).view(dtype)


def hierarchical(rank: Rank) -> int:
    """Machines of two ranks, in a ring one way."""
    import bluefog_pg.torch as bluefog

    bluefog.init(local_size=2)
    machines, machine = rank.size // 2, rank.rank // 2
    before, after = (machine - 1) % machines, (machine + 1) % machines
    result = bluefog.hierarchical_neighbor_allreduce(
        values((501,), torch.float32, 5, rank.rank).to(rank.device.torch),
        self_weight=0.25,
        src_machine_weights={before: 0.75},
        dst_machine_weights=[after],
    )
    weights = {machine: 0.125, before: 0.375}  # of each rank there
    terms = [
        (weight, values((501,), torch.float32, 5, 2 * m + local))
        for m, weight in weights.items()
        for local in range(2)
    ]
    wrong = count_wrong(result, terms)
    bluefog.shutdown()
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
