"""What a call promises of streams, memory and graphs, in two ranks."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist

import bluefog_pg as bf
from gpu.launch import Rank, run_ranks
from gpu.reference import count_different, count_wrong, values
from gpu.rows import checked, emit, parser, status

LONG = 100.0  # ms that a kernel takes
SHARE = 0.25  # of it that the host may take for a call
DROPPED = 100  # operations that nobody waits for
REPLAYS = 5


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", type=int, default=2)
    arguments.add_argument("--elements", type=int, default=1 << 18)
    arguments.add_argument("--seconds", type=float, default=60)
    args = arguments.parse_args()
    given = {"seconds": args.seconds}
    rows = run_ranks("streams", checks, args.ranks, args.elements, **given)
    return status([emit(row) for row in rows])


def checks(rank: Rank, numel: int) -> None:
    own = dist.new_group(backend="bluefog", pg_options=bf.BluefogOptions(own_communicator=True))
    for way, group in (("", None), (", own communicator", own)):
        bf.set_topology(bf.ring(rank.size), group=group)
        streams = Streams(rank, group, numel)
        for name, check in streams.all():
            rank.check(f"{name}{way}", check)
        for row in streams.host_times():
            row["check"] += way
            if rank.rank == 0 or not row["ok"]:
                rank.tell(row)
        del streams


class Streams:
    """Values are on the device before an operation's turn comes: the host waits for a copy of its
    own memory, and no operation would be early then."""

    def __init__(self, rank: Rank, group: Any, numel: int) -> None:
        self._device, self._group, self._numel = rank.device, group, numel
        self._rank, self._size = rank.rank, rank.size

    def all(self) -> Iterator[tuple[str, Callable[[], int]]]:
        yield "sync behind a long kernel", lambda: self._sync(side=False)
        yield "sync on a side stream", lambda: self._sync(side=True)
        yield "async, waited for on another stream", self._waited_elsewhere
        yield "neighbor_allgather on a side stream", self._gather
        yield "two at once, waited for in the other order", self._two_at_once
        yield "memory of operations that nobody waits for", self._dropped
        yield "memory of inputs that are freed at once", self._freed
        yield "graph of a sync operation", lambda: self._graph(asynchronous=False)
        yield "graph of an async operation", lambda: self._graph(asynchronous=True)

    # ---- Streams

    def _sync(self, side: bool) -> int:
        x, value = self._poisoned(), self._there(1)
        with self._device.side_stream() if side else nullcontext():
            self._device.be_busy(LONG)
            x.copy_(value)
            y = bf.neighbor_allreduce(x, group=self._group)
            x.fill_(55)  # behind the operation, which is done with it then
            result = y + 0
        self._device.synchronize()
        return count_wrong(result, self._terms(1))

    def _waited_elsewhere(self) -> int:
        x, value = self._poisoned(), self._there(2)
        with self._device.side_stream():
            self._device.be_busy(LONG)
            x.copy_(value)
            work = bf.neighbor_allreduce(x, group=self._group, async_op=True)
        with self._device.side_stream():
            work.wait()
            result = work.result()[0] + 0
            x.fill_(55)
        self._device.synchronize()
        return count_wrong(result, self._terms(2))

    def _gather(self) -> int:
        x, value = self._poisoned(), self._there(3)
        with self._device.side_stream():
            self._device.be_busy(LONG)
            x.copy_(value)
            work = bf.neighbor_allgather(x, group=self._group, async_op=True)
        with self._device.side_stream():
            work.wait()
            first = work.result()[0] + 0
            second = bf.neighbor_allgather(x, group=self._group) + 0
        self._device.synchronize()
        sources = sorted({(self._rank - 1) % self._size, (self._rank + 1) % self._size})
        expected = torch.cat([self._value(3, j) for j in sources])
        return count_different(first, expected) + count_different(second, expected)

    def _two_at_once(self) -> int:
        first, second, value = self._there(4), self._poisoned(), self._there(5)
        with self._device.side_stream():
            self._device.be_busy(LONG / 4)
            one = bf.neighbor_allreduce(first, group=self._group, async_op=True)
        with self._device.side_stream():
            second.copy_(value)
            two = bf.neighbor_allreduce(second, group=self._group, async_op=True)
        two.wait()
        after = two.result()[0] + 0
        one.wait()
        before = one.result()[0] + 0
        self._device.synchronize()
        return count_wrong(before, self._terms(4)) + count_wrong(after, self._terms(5))

    # ---- Memory

    def _dropped(self) -> int:
        """The inputs and the Works are let go at once, and others get memory of the same size."""
        outs, inputs = [], [self._there(10 + step) for step in range(DROPPED)]
        for value in inputs:
            out, x = self._poisoned(), value.clone()
            bf.neighbor_allreduce(x, out=out, group=self._group, async_op=True)
            del x
            self._poisoned()  # takes what the allocator has again
            outs.append(out)
        self._device.synchronize()
        return sum(count_wrong(out, self._terms(10 + step)) for step, out in enumerate(outs))

    def _freed(self) -> int:
        """Of operations on changing streams, whose results are waited for late."""
        works, inputs = [], [self._there(10 + step) for step in range(DROPPED)]
        for step, value in enumerate(inputs):
            with self._device.side_stream() if step % 3 == 0 else nullcontext():
                x = value.clone()
                works.append(bf.neighbor_allreduce(x, group=self._group, async_op=True))
                del x
                self._poisoned()
        wrong = 0
        for step, work in enumerate(works):
            work.wait()
            wrong += count_wrong(work.result()[0], self._terms(10 + step))
        return wrong

    # ---- Graphs

    def _graph(self, asynchronous: bool) -> int:
        """Replayed with another input each time, which kernels before and after surround."""
        x = self._poisoned()

        def operations() -> torch.Tensor:
            doubled = x * 2
            if not asynchronous:
                return bf.neighbor_allreduce(doubled, group=self._group) * 0.5
            work = bf.neighbor_allreduce(doubled, group=self._group, async_op=True)
            work.wait()
            return work.result()[0] * 0.5

        replay = self._device.record(operations)
        wrong = 0
        for step in range(REPLAYS):
            x.copy_(self._value(200 + step))
            result = replay().clone()
            # One that is no part of the graph, in between.
            other = bf.neighbor_allreduce(x, group=self._group)
            wrong += count_wrong(result, self._terms(200 + step))
            wrong += count_wrong(other, self._terms(200 + step))
        self._device.synchronize()
        return wrong

    # ---- The host

    def host_times(self) -> Iterator[dict[str, Any]]:
        """Calls while the stream is kept from going on: the host comes back long before."""
        x = self._there(6)

        def gather() -> None:
            bf.neighbor_allgather(x, group=self._group)

        def sync() -> None:
            bf.neighbor_allreduce(x, group=self._group)

        def asynchronous() -> None:
            bf.neighbor_allreduce(x, group=self._group, async_op=True).wait()

        for call in (sync, asynchronous, gather):
            call()
            self._device.synchronize()
            dist.barrier()
            self._device.synchronize()
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start = time.perf_counter()
            before.record()
            self._device.be_busy(LONG)
            after.record()
            call()
            host = 1e3 * (time.perf_counter() - start)
            self._device.synchronize()
            kernel = before.elapsed_time(after)
            late = int(host > SHARE * kernel)
            row = checked(f"the host does not wait: {call.__name__}", late)
            del row["wrong"]  # each rank tells of itself
            yield row | {"host_ms": round(host, 2), "kernel_ms": round(kernel, 2)}

    # ---- Inputs

    def _poisoned(self) -> torch.Tensor:
        return torch.full([self._numel], 77.0, device=self._device.torch)

    def _value(self, step: int, rank: int | None = None) -> torch.Tensor:
        rank = self._rank if rank is None else rank
        return values([self._numel], torch.float32, step, rank)

    def _there(self, step: int) -> torch.Tensor:
        return self._value(step).to(self._device.torch)

    def _terms(self, step: int) -> list[tuple[float, torch.Tensor]]:
        ranks = sorted({(self._rank + d) % self._size for d in (-1, 0, 1)})
        return [(1 / len(ranks), self._value(step, j)) for j in ranks]


if __name__ == "__main__":
    raise SystemExit(main())
