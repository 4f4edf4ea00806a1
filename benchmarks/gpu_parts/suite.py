"""Does everything run on the device? Small recipes through every criterion, action, parametrization and network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lotteryfw.registry import Registry
from lotteryfw.runner import Interrupted

from .report import Report
from .studies import Troubles, base, go, tickets

PLUGIN = Path(__file__).with_name("plugin.py")


def run(report: Report) -> None:
    """One row for each recipe: "pass", or what it failed with."""
    for name, table in recipes(report).items():
        with _passing(report, name):
            go(report, table, f"suite-{name}", report.device, trust=[PLUGIN])
    if not report.tiny:
        with _passing(report, "two processes"):
            go(report, base(report, seeds=[0, 1]), "suite-workers", report.device, jobs=2)
    for name, table in _resumed(report).items():
        with _passing(report, f"resume: {name}"):
            _resume(report, name, table)


@contextmanager
def _passing(report: Report, name: str) -> Iterator[None]:
    """Record that a block raised nothing, or what it raised."""
    started = time.perf_counter()
    with report.attempt(name, 60):
        yield
        report.add(name, "pass", note=f"{time.perf_counter() - started:.1f} s")


def names(kind: str) -> list[str]:
    """Every component of a kind that comes with lotteryfw."""
    return [
        offer.name for offer in Registry.load().offers(kind) if offer.distribution == "lotteryfw"
    ]


def recipes(report: Report) -> dict[str, dict[str, Any]]:
    """Recipes by what they try."""
    train = base(report)["train"]
    side = 8 if report.tiny else 16
    images = {"use": "synthetic", "examples": 60 if report.tiny else 600, "shape": [3, side, side]}
    narrow = {"width": 0.1 if report.tiny else 0.25}
    learned = {
        "initialiser": "signed_constant",
        "model": {"use": "mlp", "hidden": [12, 8], "bias": False},
    }
    one = {"use": "imp", "levels": 1}

    def conv(model: str, **changes: Any) -> dict[str, Any]:
        settings = {**train, "batch": 30, "length": "4it" if report.tiny else "10it", **changes}
        return base(report, data=images, model={"use": model} | narrow, search=one, train=settings)

    all_recipes = {
        **{f"criterion {name}": base(report, criterion=name) for name in names("criterion")},
        "criterion with gradients": base(report, criterion="connection_sensitivity"),
        **{f"mask1 {name}": base(report, mask1=name) for name in names("mask1")},
        **{f"mask0 {name}": base(report, mask0=name, search={"use": "imp", "levels": 2}) for name in names("mask0")},
        **{f"scope {name}": base(report, scope=name) for name in names("scope") if name != "erk"},
        "rewind to a step": base(report, rewind={"use": "to_step", "step": "2it"}),
        "rewind learning_rate": base(report, rewind="learning_rate"),
        "rewind fine_tune": base(report, rewind={"use": "fine_tune"}),
        **{
            f"optimizer {name}": base(report, train={**train, "optimizer": {"use": name, "lr": 1e-3}})
            for name in names("optimizer")
        },
        "schedule cosine": base(report, train={**train, "schedule": "cosine"}),
        "one_shot": base(report, search={"use": "one_shot", "levels": 2}),
        "one_shot, nothing trained": base(report, search={"use": "one_shot", "levels": 2, "train": False}),
        "random_pruning": base(report, search={"use": "random_pruning", "levels": 1}),
        "controls": base(report, controls=["untrained", "reinit", "random_mask", "random_mask_reinit"]),
        "reconstruction": base(report, train={**train, "objective": "reconstruction"}),
        "supermask": base(report, search="supermask", parametrization="bernoulli", **learned),
        "supermask, dynamic rescaling": base(
            report, search="supermask", parametrization={"use": "bernoulli", "rescale": "dynamic"}, **learned
        ),
        "supermask, weights trained": base(
            report, search={"use": "supermask", "train_weights": True}, parametrization="bernoulli", **learned
        ),
        "edge_popup": base(
            report, search={"use": "edge_popup", "density": 0.5}, parametrization="top_k", analyses=["dying_edges"],
            **learned,
        ),
        "edge_popup, global": base(
            report, search={"use": "edge_popup", "density": 0.5}, parametrization="top_k", scope="global", **learned
        ),
        "iterative_edge_popup": base(
            report, search={"use": "iterative_edge_popup", "density": 0.5}, parametrization="top_k",
            rewind="learning_rate", **learned,
        ),
        "iterative_edge_popup, hard": base(
            report, search={"use": "iterative_edge_popup", "density": 0.5, "pruning": "hard"}, parametrization="top_k",
            rewind={"use": "to_step", "step": "2it"}, **learned,
        ),
        "analyses": base(report, analyses=["mask_diagnostics", "mask_overlap", "weight_scatter"]),
        "dropout": base(report, model="dropped"),
        "conv2": conv("conv2"),
        "vgg16": base(
            report, data={**images, "shape": [3, 32, 32]}, model={"use": "vgg16"} | narrow, search=one,
            train={**train, "batch": 30, "length": "2it"},
        ),
        "resnet20, crop and flip": conv("resnet20", augment=["crop", "flip"]),
        "resnet20, random_resized_crop": conv("resnet20", augment=["random_resized_crop"]),
        "resnet18": conv("resnet18", augment=["flip"]),
        "wide_resnet": base(
            report, data=images, model={"use": "wide_resnet", "depth": 10, "widen": 1}, search=one,
            train={**train, "batch": 30, "length": "2it"},
        ),
        **{
            f"kernel {name}": base(report, engine={"kernel": name}, model={"use": "mlp", "hidden": [12, 8]})
            for name in ("reference", "lockstep", "compact")
        },
        "kernel compact, conv2": {**conv("conv2"), "engine": {"kernel": "compact"}},
    }  # fmt: skip
    if report.tiny:
        wanted = (
            "criterion large_final", "criterion with gradients", "mask1 reinit", "edge_popup", "supermask", "dropout",
            "resnet20, crop and flip",
        )  # fmt: skip
        return {name: all_recipes[name] for name in wanted}
    return all_recipes


def _resumed(report: Report) -> dict[str, dict[str, Any]]:
    """Recipes that are stopped in the middle of a training and taken up again."""
    known = recipes(report)
    if report.tiny:
        return {"dropout": known["dropout"]}
    chosen = (
        "dropout",
        "edge_popup",
        "supermask",
        "kernel reference",
        "kernel lockstep",
        "resnet20, crop and flip",
    )
    return {name: known[name] for name in chosen}


def _resume(report: Report, name: str, table: dict[str, Any]) -> None:
    """The tickets of a run that was stopped must be those of one that was not, bit for bit."""
    listener = Troubles(stop_after=3)
    place = f"resume-{name}"
    try:
        go(report, table, place, report.device, listener, checkpoint_seconds=0.0, trust=[PLUGIN])
    except Interrupted:
        pass
    else:
        raise RuntimeError("the run was not stopped")
    resumed = go(report, table, place, report.device, trust=[PLUGIN])
    whole = go(report, table, f"{place}-whole", report.device, trust=[PLUGIN])

    theirs = tickets(whole)
    for ticket_name, ticket in tickets(resumed).items():
        for layer, value in ticket.values.items():
            if not bool((value == theirs[ticket_name].values[layer]).all()):
                raise RuntimeError(
                    f"{ticket_name}: {layer} differs from that of a run that was not stopped"
                )
    for ours, other in zip(resumed.levels, whole.levels, strict=True):
        if ours.test_loss != other.test_loss:
            raise RuntimeError(
                f"level {ours.level}: test loss {ours.test_loss}, {other.test_loss} without a stop"
            )
