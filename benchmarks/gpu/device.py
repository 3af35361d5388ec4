"""What checks ask of the GPU: streams, a kernel that takes long, graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch


class Device:
    def __init__(self) -> None:
        self.torch = torch.device("cuda", 0)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """A new stream, behind what the current one has been given, is current inside."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield

    def be_busy(self, milliseconds: float) -> None:
        """Keeps the current stream from going on for about so long."""
        torch.cuda._sleep(int(milliseconds * self._cycles_per_millisecond))

    @cached_property
    def _cycles_per_millisecond(self) -> float:
        cycles = 20_000_000
        torch.cuda._sleep(cycles)  # the first one loads it
        return cycles / self.milliseconds(lambda: torch.cuda._sleep(cycles))

    def milliseconds(self, function: Callable[[], Any]) -> float:
        """How long the GPU takes for what function() enqueues."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def record(self, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Captures a graph of function(); each call of the result replays it, and returns what
        function() returned."""
        with self.side_stream():
            function()  # loads what it uses
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads, NCCL's watchdogs for one, may ask for the state of events meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()

        def replay() -> torch.Tensor:
            graph.replay()
            return result

        return replay
