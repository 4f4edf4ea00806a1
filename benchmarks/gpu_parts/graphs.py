"""Work that is captured as a CUDA graph, and updates of trainings that are recorded in other ways or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lotteryfw.engine.kernels.captured import RECORDERS, Body, Pool

from .report import Report


def captured(work: Callable[[], Any], warmup: int = 3) -> Callable[[], None]:
    """Return a function that replays `work`, which must not wait for the device or read from the host."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class StepByStep:
    """A recorder that records nothing: the very updates that are recorded elsewhere, operation by operation."""

    def pool(self) -> Pool:
        """Return nothing: the work takes memory as it always does."""
        return None

    def warm_up(self, body: Body) -> None:
        """Run the work."""
        body()

    def record(self, body: Body, pool: Pool) -> Body:
        """Return the work itself."""
        return body


@contextmanager
def recorder(report: Report, instead: Any) -> Iterator[None]:
    """Record with something else on the device; None for the plain path."""
    before = dict(RECORDERS)
    RECORDERS.pop(report.device, None)
    if instead is not None:
        RECORDERS[report.device] = instead
    try:
        yield
    finally:
        RECORDERS.clear()
        RECORDERS.update(before)
