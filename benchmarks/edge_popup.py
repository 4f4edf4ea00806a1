"""What learning a mask costs in a training step, beside training the weights of the same network.

    python benchmarks/edge_popup.py [--rounds 15] [--batch 128] [--mnist]

LeNet-300-100 and Conv-4, SGD at rate 0.1 with momentum, made-up images, in one process of one thread.
With --mnist LeNet-300-100 alone, on MNIST from $LOTTERYFW_DATA, most of whose pixels are 0. Trainings take turns: the
reference kernel on the dense network, edge-popup that keeps half of each layer, and supermasks, whose edges are drawn
in each step; both by the fused kernel as well where it can train the network. After each step of edge-popup the
selection alone is done again beside it, from the same moving scores: with the threshold that it keeps from step to
step, and by a stable sort; both masks are asserted equal. So is the tracking of edges that were ever selected. Shares
are the medians of the rounds' shares.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotteryfw import UsageError
from lotteryfw.engine import EngineContext, KernelDispatcher, configure_torch
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.engine.kernels.selection_stats import SelectionStats
from lotteryfw.runner import StudyContext, default_data_folder
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.top_k import IncrementalTopK

DENSITY = 0.5
NETWORKS = {"lenet_300_100": ([1, 28, 28], 10), "conv4": ([3, 32, 32], 1)}
"""Shape of an image, and steps in a round."""
_EDGE_POPUP = {"search": {"use": "edge_popup", "density": DENSITY}, "parametrization": "top_k"}
_SUPERMASK = {"search": "supermask", "parametrization": "bernoulli"}
_FUSED = {"engine": {"kernel": "fused"}}
LEARNED: dict[str, dict[str, Any]] = {
    "edge-popup": _EDGE_POPUP,
    "edge-popup, fused": {**_EDGE_POPUP, **_FUSED},
    "supermask": _SUPERMASK,
    "supermask, fused": {**_SUPERMASK, **_FUSED},
}


def job(
    folder: Path, model: str, mnist: bool, batch: int, **learned: Any
) -> tuple[Train, EngineContext]:
    """The training of a network, dense or as `learned` says, and where it is done."""
    made_up = {"use": "synthetic", "examples": 1280, "classes": 10, "shape": NETWORKS[model][0]}
    data_folder = default_data_folder() if mnist else folder
    recipe = {
        "name": "edge-popup-benchmark",
        "data": "mnist" if mnist else made_up,
        "model": model,
        "train": {
            "length": "100ep",
            "batch": batch,
            "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9},
        },
        "engine": {"kernel": "reference"},
        **learned,
    }
    context = StudyContext(recipe, data=data_folder, store=folder / "store")
    engine_context = EngineContext(context.registry, data_folder, "cpu")
    lab = CellLab(
        context.recipe.cells[0],
        context.describe,
        data_folder,
        "cpu",
        KernelDispatcher(engine_context),
    )
    density = DENSITY if learned.get("parametrization") == "top_k" else None
    return lab.job(lab.learn_mask(density) if learned else lab.dense()), engine_context


def by_sort(scores: Tensor) -> Tensor:
    """The mask of the best half, as anyone would write it."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[
        scores.flatten()
        .sort(descending=True, stable=True)
        .indices[: round(DENSITY * scores.numel())]
    ] = True
    return mask.reshape(scores.shape)


def timed(work: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    masks = work()
    return time.perf_counter() - started, masks


def rounds(
    folder: Path, model: str, count: int, mnist: bool, batch: int
) -> Iterator[dict[str, float]]:
    """Seconds a step of each training, and of each way of selecting, round by round."""
    trainings = {}
    for name, learned in {"dense": {}, **LEARNED}.items():
        try:
            training, engine_context = job(folder, model, mnist, batch, **learned)
        except UsageError:
            continue  # the kernel that the row asks for cannot train this network
        trainings[name] = make_kernel([training], engine_context)
    scores = trainings["edge-popup"].members[0].state().scores
    warm = [IncrementalTopK(round(DENSITY * score.numel())) for score in scores.values()]
    selected = SelectionStats(
        {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    )
    steps = NETWORKS[model][1]
    for number in range(count + 1):
        taken = dict.fromkeys([*trainings, "selection", "stable sort", "dying edges"], 0.0)
        for step in range(number * steps, (number + 1) * steps):
            for name, kernel in trainings.items():
                started = time.perf_counter()
                kernel.update(step, 1.0)
                taken[name] += (time.perf_counter() - started) / steps
            seconds, masks = timed(
                lambda: [top(score.abs()) for top, score in zip(warm, scores.values(), strict=True)]
            )
            taken["selection"] += seconds / steps
            seconds, sorted_ = timed(lambda: [by_sort(score.abs()) for score in scores.values()])
            taken["stable sort"] += seconds / steps
            assert all(map(torch.equal, masks, sorted_))
            started = time.perf_counter()
            selected.update(dict(zip(scores, masks, strict=True)))
            taken["dying edges"] += (time.perf_counter() - started) / steps
        if number:  # the first has no warm start
            yield taken


def main() -> None:
    """Times them in turn and prints a table."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rounds", type=int, default=15)
    asked.add_argument("--batch", type=int, default=128)
    asked.add_argument("--mnist", action="store_true", help="LeNet-300-100 on MNIST alone")
    arguments = asked.parse_args()
    count = arguments.rounds
    configure_torch()
    print(
        f"{platform.machine()}, torch {version('torch')}, batch {arguments.batch}, one thread, {count} rounds"
    )
    for model in ["lenet_300_100"] if arguments.mnist else NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            found = list(rounds(Path(folder), model, count, arguments.mnist, arguments.batch))
        print(f"{model}\n  {'':<17} {'ms':>9} {'of dense step':>14} {'of edge-popup step':>19}")
        for name in found[0]:
            shares = [
                [each[name] / each[whole] for each in found] for whole in ("dense", "edge-popup")
            ]
            middle = 1e3 * statistics.median(each[name] for each in found)
            dense, popup = map(statistics.median, shares)
            print(f"  {name:<17} {middle:9.2f} {dense:13.3f}× {popup:18.2%}")


if __name__ == "__main__":
    main()
