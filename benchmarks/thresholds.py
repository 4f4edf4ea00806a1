"""How long a mask of a million drifting scores takes: a sort against selection, and selection from a warm start.

    python benchmarks/thresholds.py [--repeats 30]

Asserts that all keep the same scores (`best` draws among ties, the others keep the first of them). Prints the median
milliseconds of each and its ratio to the sort, in one run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

from lotteryfw.search.top_k import IncrementalTopK, best


def main() -> None:
    """Times the ways in turn on the same scores and prints a table."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--repeats", type=int, default=30)
    repeats = asked.parse_args().repeats
    torch.set_num_threads(1)
    size, keep = 1_000_000, 300_000
    rng = torch.Generator().manual_seed(0)
    warm = IncrementalTopK(keep)

    def by_sort(scores: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.sort(scores, descending=True, stable=True).indices[:keep]] = True
        return mask

    def by_selection(scores: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[best(scores, keep, lambda: rng)] = True
        return mask

    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "torch.sort": by_sort, "select.best": by_selection, "select.IncrementalTopK": warm
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in ways}
    scores = torch.randn(size, generator=rng)
    for repeat in range(repeats + 1):
        masks = []
        for name, way in ways.items():
            started = time.perf_counter()
            masks.append(way(scores))
            if repeat:  # the first call has no warm start
                times[name].append(time.perf_counter() - started)
        assert torch.equal(masks[0], masks[2])
        assert torch.equal(scores[masks[0]].sort().values, scores[masks[1]].sort().values)
        scores = scores + 1e-3 * torch.randn(size, generator=rng)
    print(
        f"{platform.machine()}, torch {version('torch')}, {size:,} scores, {keep:,} kept, {repeats} repeats"
    )
    whole = statistics.median(times["torch.sort"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"  {name:<15} {1e3 * middle:8.2f} ms   {whole / middle:6.1f}×")


if __name__ == "__main__":
    main()
