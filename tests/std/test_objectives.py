"""Objectives: the built-in ones against plain formulas, and masks and weights trained for another loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.small import REGISTRY
from torch.nn.functional import cross_entropy, kl_div

from lotteryfw.api.errors import RecipeError
from lotteryfw.runner import run_study as run
from lotteryfw.std.objectives import Classification, Reconstruction
from lotteryfw.std.penalties import L1, Distillation, GroupLasso

AUTOENCODER: dict[str, Any] = {
    "name": "autoencoder",
    "data": "digits",
    "model": {"use": "mlp", "hidden": [32]},
    "train": {
        "length": "150it",
        "batch": 60,
        "objective": "reconstruction",
        "optimizer": {"use": "adam", "lr": 3e-3},
    },
    "evaluate": {"points": 3},
    "search": {"use": "imp", "levels": 1},
}


def test_classification_is_cross_entropy_and_counts_the_largest_logit() -> None:
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    for reduction in ("mean", "sum"):
        loss = Classification().loss(logits, torch.zeros(7, 1), labels, reduction)
        assert torch.equal(loss, cross_entropy(logits, labels, reduction=reduction))
    assert torch.equal(
        Classification().correct(logits, torch.zeros(7, 1), labels), logits.argmax(1) == labels
    )


def test_reconstruction_is_the_squared_error_and_the_variance_explained() -> None:
    inputs = torch.rand(5, 1, 2, 2)
    labels = torch.zeros(5, dtype=torch.int64)
    assert Reconstruction().output_size((1, 2, 2), 10) == 4
    assert torch.equal(Reconstruction().correct(inputs.flatten(1), inputs, labels), torch.ones(5))
    flat = inputs.flatten(1)
    means = flat.mean(1, keepdim=True).expand(-1, 4)
    assert Reconstruction().correct(means, inputs, labels).abs().max() < 1e-6
    off = flat + 0.5
    assert float(Reconstruction().loss(off, inputs, labels, "mean")) == pytest.approx(
        0.25, rel=1e-5
    )
    assert float(Reconstruction().loss(off, inputs, labels, "sum")) == pytest.approx(1.25, rel=1e-5)


def test_a_pruned_autoencoder_is_trained_through_a_recipe(tmp_path: Path) -> None:
    done = run(AUTOENCODER, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    dense, pruned = done.levels
    assert dense.weights_total == 64 * 32 + 32 * 64
    assert dense.test_loss is not None
    assert dense.test_accuracy is not None
    assert dense.test_loss < 0.06
    assert 0.4 < dense.test_accuracy < 1
    assert pruned.density < 1


def test_a_mask_is_learned_for_another_loss(tmp_path: Path) -> None:
    recipe = AUTOENCODER | {
        "search": {"use": "edge_popup", "density": 0.5},
        "parametrization": "top_k",
        "initialiser": "signed_constant",
    }
    recipe["train"] = AUTOENCODER["train"] | {
        "optimizer": {"use": "sgd", "lr": 1.0, "momentum": 0.9}
    }
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    (level,) = done.levels
    curve = done.folder.read_curves()[0]
    assert level.density == 0.5
    assert curve["validation_loss"][-1] < 0.7 * curve["validation_loss"][0]


def test_a_kernel_with_cross_entropy_built_in_refuses_another_loss(tmp_path: Path) -> None:
    recipe = AUTOENCODER | {"engine": {"kernel": "fused"}}
    with pytest.raises(
        RecipeError, match="cross-entropy built in, and the objective is 'lotteryfw/reconstruction'"
    ):
        run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1)


def test_the_default_is_classification() -> None:
    default = REGISTRY.default("objective")
    assert default is not None
    assert default.name == "classification"


WEIGHTS = {"a": torch.tensor([[3.0, -4.0], [0.0, 0.0]]), "b": torch.tensor([[1.0, 0.0]])}
L1_OF_WEIGHTS = 8.0
GROUP_LASSO_OF_WEIGHTS = 2**0.5 * (5.0 + 1.0)


def test_penalties_of_nested_objectives_are_added_up() -> None:
    nested = L1(strength=0.5, inner=GroupLasso(strength=0.1))
    penalty = nested.penalty(WEIGHTS)
    assert penalty is not None
    assert float(penalty) == pytest.approx(0.5 * L1_OF_WEIGHTS + 0.1 * GROUP_LASSO_OF_WEIGHTS)


def test_distillation_keeps_the_penalty_of_the_objective_inside() -> None:
    penalty = Distillation(inner=L1(strength=0.5)).penalty(WEIGHTS)
    assert penalty is not None
    assert float(penalty) == pytest.approx(0.5 * L1_OF_WEIGHTS)
    assert Distillation().penalty(WEIGHTS) is None


def test_a_penalty_around_distillation_keeps_the_teacher() -> None:
    inner = Distillation(share=0.5, temperature=2.0)
    nested = L1(strength=0.5, inner=inner)
    assert nested.needs_teacher
    assert not L1().needs_teacher

    logits, teacher, labels = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    inputs = torch.zeros(5, 1)
    divergence = kl_div(
        (logits / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean"
    )
    expected = 0.5 * cross_entropy(logits, labels) + 0.5 * 4 * divergence
    torch.testing.assert_close(nested.taught_loss(logits, teacher, inputs, labels), expected)
    penalty = nested.penalty(WEIGHTS)
    assert penalty is not None
    assert float(penalty) == pytest.approx(0.5 * L1_OF_WEIGHTS)


@pytest.mark.parametrize("inner", ["distillation", {"use": "l1", "inner": "distillation"}])
def test_two_teachers_are_refused(inner: Any) -> None:
    with pytest.raises(
        ValidationError, match="compares with the teacher itself: name an objective"
    ):
        REGISTRY.create("objective", {"use": "distillation", "inner": inner})
