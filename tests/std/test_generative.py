"""A generator that is found by its mask, against a discriminator that is trained."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import cli, refused
from support.paths import ROOT
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lotteryfw import Analysis, AnalysisResult, Lab, LevelResult, Search, run
from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.evaluate import summed_metrics
from lotteryfw.std.frozen_weights import FrozenWeights
from lotteryfw.std.generative import LOGITS, Adversarial, Dcgan, MomentDistance
from lotteryfw.std.parametrizations import TopK

RECIPE = ROOT / "recipes" / "strong_generator.toml"
SHORT = ("--profile", "quick", "--set", "seeds=[0]", "--set", "model.width=0.25", "--set")
SHAPE = (1, 8, 8)


def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return Dcgan(width=0.25).build(SHAPE, LOGITS + 64)


def test_one_loss_gives_each_network_the_gradient_of_its_own() -> None:
    pair: Any = module()
    inputs = torch.rand(5, *SHAPE)
    torch.manual_seed(1)
    loss = Adversarial().loss(pair(inputs), inputs, torch.zeros(5), "mean")
    together = torch.autograd.grad(loss, list(pair.parameters()))

    torch.manual_seed(1)
    generated = pair.generator(torch.randn(5, 32))
    ones, zeros = torch.ones(5, 1), torch.zeros(5, 1)
    judged = [pair.discriminator(inputs), pair.discriminator(generated.detach())]
    of_discriminator = binary_cross_entropy_with_logits(judged[0], ones)
    of_discriminator = of_discriminator + binary_cross_entropy_with_logits(judged[1], zeros)
    of_generator = binary_cross_entropy_with_logits(pair.discriminator(generated), ones)
    alone = [
        *torch.autograd.grad(of_generator, list(pair.generator.parameters())),
        *torch.autograd.grad(of_discriminator, list(pair.discriminator.parameters())),
    ]
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def distance(made: Tensor, real: Tensor) -> float:
    metric = MomentDistance()
    values = metric.per_example(made, real, torch.zeros(len(real)))
    return metric.result(values)


def test_the_distance_of_moments_is_that_of_two_normal_distributions() -> None:
    torch.manual_seed(0)
    images = torch.rand(500, 1, 3, 3)
    assert distance(images.flatten(1), images) == pytest.approx(0, abs=1e-9)
    # a shift moves the mean alone, in each of nine pixels
    assert distance(images.flatten(1) + 0.5, images) == pytest.approx(9 * 0.25, rel=1e-5)
    # twice as wide: tr(4 C + C - 2 · 2 C) = tr C, and the means differ by one mean
    flat = images.flatten(1).double()
    expected = flat.T.cov().trace() + flat.mean(0).square().sum()
    assert distance(2 * images.flatten(1), images) == pytest.approx(float(expected), rel=1e-5)
    # outputs before the pixels do not count
    assert distance(torch.cat([images.flatten(1)[:, :3], images.flatten(1)], 1), images) < 1e-9


class Generated:
    """Keeps the images that a network generates in an evaluation, and the metric of them."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self._values: list[Tensor] = []

    def observe(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> None:
        self.images.append(outputs[:, LOGITS:])
        self._values.append(MomentDistance().per_example(outputs, inputs, labels))

    def distance(self) -> float:
        return MomentDistance().result(torch.cat(self._values))


def test_every_batch_of_an_evaluation_has_images_of_its_own() -> None:
    pair = module()
    torch.manual_seed(1)
    part = Subset(torch.rand(2001, *SHAPE), torch.zeros(2001, dtype=torch.int64))
    data = DeviceDataset(Dataset(part, part, part), DatasetInfo(SHAPE, 1, 2001, 2001, 2001), "cpu")

    def evaluated() -> tuple[Generated, list[float]]:
        observer, values = Generated(), dict(pair.named_parameters())
        sums = summed_metrics(pair, values, data, "test", Adversarial(), observers=[observer])
        return observer, sums.tolist()

    first, sums = evaluated()
    assert [len(images) for images in first.images] == [1000, 1000, 1]
    assert len(torch.unique(torch.cat(first.images), dim=0)) == 2001
    again, sums_again = evaluated()
    assert sums_again == sums
    assert again.distance() == first.distance()


class Changed(Analysis):
    """Counts the parameters that a training changed, by network; masked ones, which end at 0, do not count."""

    use = "changed"
    figures = ("generator", "discriminator")

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        results = []
        for level in levels:
            start, end = level.ticket.values, level.trained.weights()
            changed = dict.fromkeys(self.figures, 0)
            for name, value in start.items():
                kept = level.ticket.mask.get(name, torch.ones_like(value, dtype=torch.bool))
                changed[name.partition(".")[0]] += int(((value != end[name]) & kept).sum())
            results += [AnalysisResult(level, part, count) for part, count in changed.items()]
        return results


def test_the_generator_keeps_its_weights_and_the_discriminator_is_trained(tmp_path: Path) -> None:
    finished = run(
        RECIPE,
        profile="quick",
        sets=[
            "seeds=[0]",
            "train.length=30it",
            "evaluate.points=1",
            "model.width=0.25",
            'analyses=["changed"]',
            'studies.masks.grid."search.density"=[0.5]',
            'studies.first_step.grid."search.density"=[0.5]',
        ],
        components=[Changed],
        out=tmp_path / "run", store=tmp_path / "store", data=tmp_path, jobs=1, device="cpu",
        quiet=True, report=False,
    )  # fmt: skip
    changed = {}
    for row in finished.findings:
        if row.study == "masks":
            changed[row.level, row.figure] = row.value
    assert changed[0, "generator"] > 0
    assert changed[1, "generator"] == 0
    assert changed[1, "discriminator"] > 0


@pytest.mark.large
def test_masks_alone_bring_the_images_closer_to_the_digits(tmp_path: Path) -> None:
    words = (*SHORT, "train.length=300it", "--set", "evaluate.points=1", "--jobs", "1")
    grids = []
    for study in ("masks", "first_step"):
        grids += ["--set", f'studies.{study}.grid."search.density"=[0.5]']
    done = cli(tmp_path, "recipe", str(RECIPE), *words, *grids, "--out", "run")
    assert done.returncode == 0, done.stderr
    distances = {}
    with (tmp_path / "run" / "levels.csv").open() as file:
        for row in csv.DictReader(file):
            distances[row["study"], int(row["level"])] = float(row["metric.moment_distance"])
    assert distances["masks", 1] < distances["first_step", 1]
    assert distances["masks", 0] < distances["first_step", 0]


def test_what_does_not_fit_is_refused_before_any_training(tmp_path: Path) -> None:
    def message(change: str) -> str:
        text = refused(tmp_path, "recipe", str(RECIPE), *SHORT, change, "--out", "run")
        return " ".join(text.split())

    assert "no pattern of generatr.* names it" in message('parametrization.frozen=["generatr.*"]')
    expected = "which the objective 'adversarial' reads; this objective asks for 10"
    assert expected in message('train.objective="classification"')
    assert "makes images of sides that 4 divides" in message(
        'data={use="synthetic",examples=200,classes=3,shape=[1,6,6]}'
    )


def test_a_parametrization_that_trains_weights_cannot_have_them_frozen() -> None:
    inner = FrozenWeights(inner=TopK(), frozen=["*"])
    with pytest.raises(ValueError, match="trains the weights itself"):
        FrozenWeights(inner=inner, frozen=["*"])
