"""What learning a mask costs in a step, and how the best scores are selected."""

from __future__ import annotations

from typing import Any

import torch

from lotteryfw.search.top_k import best, top

from .graphs import recorder
from .report import Report
from .trainings import SGD, digit_data, image_data, prepare, training_step

SIZES = (266_200, 2_425_024, 11_164_352)
"""Weights of LeNet-300-100, of Conv-4 and of ResNet-18."""


def run(report: Report) -> None:
    """Steps of whole networks, recorded and not, then the selection alone."""
    width = {"width": 0.1} if report.tiny else {}
    networks: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"use": "lenet_300_100"}, digit_data(report)), ({"use": "conv4"} | width, image_data(report)),
        ({"use": "resnet20"} | width, image_data(report)),
    ]  # fmt: skip
    for model, data in networks[: 1 if report.tiny else 3]:
        train = {"length": "400it", "batch": 16 if report.tiny else 128, "optimizer": SGD}
        table = {
            "data": data,
            "model": model | {"bias": False},
            "train": train,
            "initialiser": "signed_constant",
        }
        learned: dict[str, dict[str, Any]] = {
            "weights": {},
            "edge-popup": {
                "search": {"use": "edge_popup", "density": 0.5},
                "parametrization": "top_k",
            },
            "supermask": {"search": {"use": "supermask"}, "parametrization": "bernoulli"},
        }
        for label, changes in learned.items():
            with report.attempt(f"{model['use']}: {label}"):
                step = training_step(*prepare(report, table | changes))
                seconds = report.seconds_per_call(step)
                report.add(f"{model['use']}: {label}", seconds * 1e3, "ms/step")
                if label == "weights":
                    continue
                with recorder(report, None):
                    step = training_step(*prepare(report, table | changes))
                    seconds = report.seconds_per_call(step)
                report.add(f"{model['use']}: {label}, not recorded", seconds * 1e3, "ms/step")

    for size in (1000,) if report.tiny else SIZES:
        with report.attempt(f"selection among {size}"):
            selection(report, size)


def selection(report: Report, size: int, seconds: float = 0.5) -> None:
    """The largest half of so many scores, by each way to select them."""
    scores = torch.randn(size, device=report.device).abs()
    keep = size // 2
    ways = {
        "lotteryfw.search.top_k.top": lambda: top(scores, keep),
        "lotteryfw.search.top_k.best": lambda: best(scores, keep, torch.Generator),
        "torch.kthvalue": lambda: torch.kthvalue(scores, size - keep + 1),
        "torch.topk": lambda: torch.topk(scores, keep, sorted=False),
        "torch.sort": lambda: torch.sort(scores),
        "torch.sort, stable": lambda: torch.sort(scores, stable=True),
    }
    for label, way in ways.items():
        report.add(f"{size:,} scores: {label}", report.seconds_per_call(way, seconds) * 1e3, "ms")

    ranked = torch.round(scores, decimals=2)
    equal = torch.equal(top(ranked, keep).cpu(), top(ranked.cpu(), keep))
    report.add(f"{size:,} scores: ties as on the CPU", "pass" if equal else "FAILED")
