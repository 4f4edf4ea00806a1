"""Every kernel against the reference over a whole study: the same masks, and accuracies within the noise of seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from lotteryfw import load_ticket
from lotteryfw.runner import Run
from lotteryfw.runner import run_study as run

STUDY: dict[str, Any] = {
    "name": "parity",
    "data": "digits",
    "model": {"use": "mlp", "hidden": [40, 20]},
    "search": {"use": "imp", "levels": 4},
    "scope": {"use": "layerwise", "rate": 0.5, "output_rate": 0.3},
    "train": {"length": "60it", "batch": 60, "optimizer": {"use": "adam", "lr": 3e-3}},
    "evaluate": {"points": 2},
}
FAST = ["fused", "sparse", "compact", "lockstep"]


def done(folder: Path, kernel: str, **changes: Any) -> Run:
    recipe = STUDY | changes | {"engine": {"kernel": kernel}}
    return run(recipe, out=folder / kernel, store=folder / "store", jobs=1)


def masks(of: Run) -> dict[str, torch.Tensor]:
    tickets = sorted((of.path / "tickets").rglob("*.safetensors"))
    return {
        f"{path.stem} {layer}": mask
        for path in tickets
        for layer, mask in load_ticket(path).mask.items()
    }


def assert_same_masks(one: Run, other: Run) -> None:
    ours, theirs = masks(one), masks(other)
    assert ours.keys() == theirs.keys()
    for name, mask in ours.items():
        assert torch.equal(mask, theirs[name]), (
            f"{name}: {int((mask ^ theirs[name]).sum())} weights differ"
        )


@pytest.mark.parametrize(
    "optimizer", [{"use": "adam", "lr": 3e-3}, {"use": "sgd", "lr": 0.1, "momentum": 0.9}]
)
def test_every_kernel_finds_the_reference_s_masks_on_digits(
    tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    train = STUDY["train"] | {"optimizer": optimizer}
    reference = done(tmp_path, "reference", train=train)
    for kernel in FAST:
        assert_same_masks(done(tmp_path, kernel, train=train), reference)


MNIST: dict[str, Any] = {
    "data": "mnist",
    "model": "lenet_300_100",
    "search": {"use": "imp", "levels": 3},
    "evaluate": {"points": 1},
}


def mnist(folder: Path, kernel: str, optimizer: dict[str, Any]) -> Run:
    return done(
        folder, kernel, **MNIST, train=STUDY["train"] | {"length": "30it", "optimizer": optimizer}
    )


@pytest.mark.real_data("MNIST")
@pytest.mark.parametrize("kernel", FAST)
def test_every_kernel_finds_the_reference_s_masks_on_mnist(tmp_path: Path, kernel: str) -> None:
    sgd = {"use": "sgd", "lr": 0.1, "momentum": 0.9}
    assert_same_masks(mnist(tmp_path, kernel, sgd), mnist(tmp_path, "reference", sgd))


@pytest.mark.real_data("MNIST")
def test_under_adam_only_weights_of_pixels_that_are_hardly_lit_may_fall_the_other_way(
    tmp_path: Path,
) -> None:
    """Adam divides a gradient by its own size: where that is a rounding error, so is the step."""
    adam = {"use": "adam", "lr": 1.2e-3}
    ours, theirs = masks(mnist(tmp_path, "auto", adam)), masks(mnist(tmp_path, "reference", adam))
    for name, mask in ours.items():
        assert float((mask ^ theirs[name]).float().mean()) < 0.002, name


def test_accuracies_agree_within_the_noise_of_five_seeds(tmp_path: Path) -> None:
    train = STUDY["train"] | {"length": "150it"}
    accuracies: dict[str, list[float]] = {}
    for kernel in ("reference", "auto"):
        rows = done(tmp_path, kernel, train=train, seeds=list(range(5))).levels
        accuracies[kernel] = [row.test_accuracy or 0.0 for row in rows]
    differences = [
        fast - true for fast, true in zip(accuracies["auto"], accuracies["reference"], strict=True)
    ]
    assert abs(fmean(differences)) < 0.01
    assert max(map(abs, differences)) < 0.06
