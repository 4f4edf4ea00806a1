"""Every registered component keeps its kind's promises, and those that all kinds have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.broken import component
from torch import Tensor

from lotteryfw import (
    Component,
    ContractError,
    Layer,
    MaskCriterion,
)
from lotteryfw.api.errors import UsageError
from lotteryfw.api.kinds import kinds
from lotteryfw.registry import RegisteredComponent, Registry
from lotteryfw.testkit import trial
from lotteryfw.testkit.trials import TRIALS

OFFERS = {f"{offer.kind} {offer.full_name}": offer for offer in Registry.load().offers()}
OURS = {name: offer for name, offer in OFFERS.items() if offer.distribution == "lotteryfw"}
REQUIRED: dict[str, dict[str, Any]] = {
    "rewind lotteryfw/to_step": {"step": "500it", "optimizer": "saved"},
    "optimizer lotteryfw/sgd": {"lr": 0.1, "momentum": 0.9},
    "schedule lotteryfw/multistep": {"milestones": ["50%", "300ep", 15_000], "warmup": "2ep"},
    "data lotteryfw/image_folder": {"path": "pictures", "validation": 2},
    "data lotteryfw/imagenet": {"path": "imagenet"},
    "model lotteryfw/vgg16": {"width": 0.25, "affine": False},
    "model lotteryfw/vgg19": {"width": 0.25},
    "model lotteryfw/resnet18": {"width": 0.25, "affine": False, "bias": False},
    "model lotteryfw/wide_resnet": {"depth": 10, "widen": 1},
    "model lotteryfw/factory": {"function": "support.networks:chain", "arguments": {"units": 5}},
    "parametrization lotteryfw/frozen_weights": {
        "inner": "top_k",
        "frozen": ["conv*", "fc*", "*weight"],
    },
    "model lotteryfw/torchvision": {"name": "resnet18", "affine": False, "bias": False},
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that holds a small image_folder."""
    rng = np.random.default_rng(0)
    for part, images in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    folder / f"{number}.png"
                )
    monkeypatch.setenv("LOTTERYFW_DATA", str(tmp_path))


@pytest.mark.parametrize("name", OFFERS)
def test_every_component_passes_its_trial(name: str, request: pytest.FixtureRequest) -> None:
    if name == "data lotteryfw/image_folder":
        request.getfixturevalue("pictures")
    trial(OFFERS[name].cls, REQUIRED.get(name))


def test_every_kind_has_a_trial_and_a_component() -> None:
    # Mask updates come with the plugin lotteryfw-dynamic.
    offered = {offer.kind for offer in OURS.values()} | {"mask_update"}
    assert TRIALS.keys() == kinds().keys() == offered


@pytest.mark.parametrize("offer", OURS.values(), ids=OURS)
def test_ours_say_what_they_do_and_where_it_comes_from(offer: RegisteredComponent) -> None:
    assert offer.cls.summary()
    assert offer.cls.source
    assert offer.cls.formula


class Powered(MaskCriterion):
    """Keeps large powers."""

    use = "powered"
    power: float

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs() ** self.power


def test_options_without_a_default_are_asked_for_and_wrong_ones_explained() -> None:
    trial(Powered, {"power": 2})
    with pytest.raises(
        UsageError,
        match=r"criterion 'powered' has options without a default: power; .*\"power\": …",
    ):
        trial(Powered)
    with pytest.raises(UsageError, match="criterion 'powered': power must be a number, got 'two'"):
        trial(Powered, {"power": "two"})
    with pytest.raises(UsageError, match=r"has no option 'powr'.*did you mean 'power'"):
        trial(Powered, {"power": 2, "powr": 3})
    with pytest.raises(UsageError, match="is no component class"):
        trial(Component)


def test_what_every_component_must_have() -> None:
    score = {"score": lambda self, layer: layer.final.abs()}
    with pytest.raises(ContractError, match="has no summary; write a docstring"):
        trial(component(MaskCriterion, __doc__=None, **score))
    with pytest.raises(ContractError, match="it has no name"):
        trial(component(MaskCriterion, use="", **score))
    with pytest.raises(ContractError, match="it is not frozen"):
        trial(component(MaskCriterion, model_config={"frozen": False}, **score))


class Opaque(MaskCriterion):
    """Has an option that cannot be written into a job."""

    use = "opaque"
    where: complex = 1j

    def score(self, layer: Layer) -> Tensor:
        return layer.final.abs()


class Infinite(Opaque):
    """Has an option that JSON cannot hold."""

    use = "infinite"
    where: float = float("inf")


def test_options_must_survive_as_plain_data() -> None:
    trial(Opaque)  # "1j" is text that pydantic reads back
    with pytest.raises(
        ContractError, match="cannot be built again from its own options as plain data"
    ):
        trial(Infinite)
