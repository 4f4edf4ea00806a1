"""Masks learned without autograd, against autograd: same masks and figures, and when each is chosen."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import cell, engine_context, execute_one, kernel, lab, make
from support.trainings import OPTIMIZERS, run_training

from lotteryfw.api.errors import TrainingDiverged, UsageError
from lotteryfw.api.kinds import Parametrization
from lotteryfw.engine import KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train
from lotteryfw.std.parametrizations import TopK
from lotteryfw.store import Store

torch.set_num_threads(1)
SGD = {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
DIGITS: dict[str, Any] = {"data": "digits", "model": {"use": "mlp", "hidden": [40, 20]}}
LARGE: dict[str, Any] = {"data": "digits", "model": {"use": "mlp", "hidden": [800, 100]}}
HOW: dict[str, tuple[Any, float | None]] = {
    "top_k": ("top_k", 0.5),
    "signed, fan scaled": ({"use": "top_k", "rank": "signed", "scale_fan": True}, 0.2),
    "every third step": ({"use": "top_k", "every": 3}, 0.1),
    "bernoulli": ("bernoulli", None),
    "dynamic": ({"use": "bernoulli", "rescale": "dynamic"}, None),
    "static": ({"use": "bernoulli", "rescale": "static", "logit": 0.5}, None),
}


def learning(how: Any, density: float | None, steps: int = 60, **changes: Any) -> Train:
    # No signed constants: their sums may be 0 but for rounding, where a ReLU's slope is anybody's.
    changes = {"optimizer": SGD, **DIGITS, **changes}
    desk = lab(cell(steps, parametrization=make("parametrization", how), **changes))
    job: Train = desk.job(desk.learn_mask(density))
    return job


def on(job: Train, choice: str) -> Train:
    return replace(job, kernel=KernelDispatcher(engine_context())(job, choice))


def trained(job: Train, choice: str) -> Training:
    return run_training(TrainingGroup([on(job, choice)], engine_context()))


@pytest.fixture(params=[0.9, 0.1], ids=["all inputs", "sparse inputs"])
def inputs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer reads all inputs, or those that are not 0."""
    monkeypatch.setattr(DeviceDataset, "nonzero_share", lambda self: request.param)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("how", HOW)
def test_scores_and_figures_are_those_of_autograd(how: str) -> None:
    job = learning(*HOW[how])
    fast, true = trained(job, "fused"), trained(job, "reference")
    for name, scores in true.member.state().scores.items():
        ours = fast.member.state().scores[name]
        torch.testing.assert_close(ours, scores, rtol=1e-5, atol=1e-6)
        assert not torch.equal(ours, job.scores[name]), "the training moved nothing"
    for name, values in true.curve.items():
        # There is no training loss before the first step.
        assert fast.curve[name][1:] == pytest.approx(values[1:], rel=1e-5, abs=1e-5), name
    assert fast.metrics().test_accuracy == pytest.approx(true.metrics().test_accuracy, abs=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "nesterov"])
def test_any_optimizer_trains_the_scores(optimizer: str) -> None:
    job = learning("top_k", 0.5, steps=20, optimizer=OPTIMIZERS[optimizer])
    fast, true = trained(job, "fused"), trained(job, "reference")
    for name, scores in true.member.state().scores.items():
        torch.testing.assert_close(fast.member.state().scores[name], scores, rtol=1e-3, atol=1e-4)


def test_biases_that_are_there_take_part() -> None:
    job = learning("top_k", 0.5, steps=5)
    biases = [name for name in job.values if name.endswith(".bias")]
    assert biases
    shifted = {name: job.values[name] + 0.3 for name in biases}
    job = replace(job, values={**job.values, **shifted})
    fast, true = trained(job, "fused"), trained(job, "reference")
    assert fast.curve["validation_loss"] == pytest.approx(true.curve["validation_loss"], rel=1e-4)


@pytest.mark.usefixtures("inputs")
def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    job = on(learning("bernoulli", None, steps=40), "fused")
    stores = [Store(tmp_path / name) for name in "ab"]
    execute_one(job, stores[0], engine_context(), lambda done, of: False)
    with pytest.raises(Stopped):
        execute_one(job, stores[1], engine_context(), lambda done, of: done == 17)
    execute_one(job, stores[1], engine_context(), lambda done, of: False)
    bits = []
    for store in stores:
        outcome = StoredOutcome(store, job.key)
        tensors = outcome.tensors().encoded().items()
        bits.append((outcome.metrics, {name: value.numpy().tobytes() for name, value in tensors}))
    assert bits[0] == bits[1]


def test_a_divergence_is_noticed() -> None:
    job = learning("top_k", 0.5, optimizer={"use": "sgd", "lr": 1e38, "momentum": 0.9})
    with pytest.raises(TrainingDiverged):
        trained(job, "fused")


def test_auto_takes_it_for_networks_that_repay_it() -> None:
    choose = KernelDispatcher(engine_context())
    expected = kernel("fused_masks", loops=f"numba{version('numba')}")
    large = learning("top_k", 0.5, **LARGE)
    assert choose(large, "auto") == expected
    assert choose(learning("top_k", 0.5), "auto") == kernel("mask_training")
    assert choose(large, "reference") == kernel("mask_training")


def test_where_most_inputs_are_0_the_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceDataset, "nonzero_share", lambda self: 0.19)
    spec = KernelDispatcher(engine_context())(learning("top_k", 0.5, **LARGE), "auto")
    assert spec.options["inputs"] == "sparse"


def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = KernelDispatcher(engine_context())
    images = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8]}
    conv = learning("top_k", 0.5, data=images, model={"use": "conv2", "width": 0.05})
    half = replace(learning("top_k", 0.5), precision="bf16")
    smoothed = learning("top_k", 0.5, objective={"use": "classification", "label_smoothing": 0.1})
    monkeypatch.setattr(TopK, "score_gradient", Parametrization.score_gradient)
    by_autograd = learning("top_k", 0.5)
    with pytest.raises(UsageError, match=r"top_k' has no score_gradient\(\); use auto"):
        choose(by_autograd, "fused")
    monkeypatch.undo()
    for job, why in (
        (conv, "Conv2d"),
        (half, "train.precision is 'bf16'"),
        (smoothed, "cross-entropy built in"),
    ):
        with pytest.raises(UsageError, match=why):
            choose(job, "fused")
        assert choose(job, "auto").name == "mask_training"
