"""Soft thresholds and continuous sparsification: formulas, gradients, trials, and the recipe."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from lotteryfw_soft import ContinuousSparsification, SoftThreshold, register_components
from pydantic import ValidationError
from torch import Tensor

from lotteryfw import (
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    load_ticket,
    run,
    stream,
)
from lotteryfw.registry import Registry
from lotteryfw.testkit import trial

PLUGIN = Path(__file__).parents[1]
CODE = PLUGIN / "src" / "lotteryfw_soft" / "__init__.py"
LAYER = LayerInfo("fc1.weight", (4, 6))


def layer(scores: Tensor, progress: float | None = None) -> MaskedLayer:
    """A layer of six rows of weights around zero, some of which were removed for good."""
    weights = torch.randn(LAYER.shape, generator=stream("test", "weights"))
    allowed = torch.ones(LAYER.shape, dtype=torch.bool)
    allowed[0, :2] = False
    return MaskedLayer(LAYER, weights, scores, allowed, progress)


def network(edges: MaskedLayer) -> MaskedNetwork:
    return MaskedNetwork({LAYER.name: edges}, (), lambda info, rng: torch.zeros(info.shape))


def test_soft_thresholding_shrinks_each_weight_by_its_layers_threshold() -> None:
    edges = layer(torch.tensor([-1.0], requires_grad=True))
    edges = replace(edges, weights=edges.weights.requires_grad_())
    method = SoftThreshold()
    mask = method.masks(network(edges))[LAYER.name]
    weight = method.weight(edges, mask)
    threshold = 1 / (1 + exp(1.0))
    kept = 0
    slope = 0.0
    for row in range(4):
        for column in range(6):
            value = float(edges.weights[row, column].detach())
            is_kept = abs(value) > threshold and bool(edges.allowed[row, column])
            assert bool(mask[row, column]) == is_kept
            sign = 1 if value > 0 else -1
            expected = sign * (abs(value) - threshold) if is_kept else 0.0
            assert float(weight[row, column].detach()) == pytest.approx(expected, abs=1e-6)
            kept += is_kept
            slope -= sign * is_kept
    assert 0 < kept < 22
    weight.sum().backward()
    assert edges.weights.grad is not None
    assert torch.equal(edges.weights.grad, mask.float())
    assert edges.scores.grad is not None
    assert float(edges.scores.grad) == pytest.approx(slope * threshold * (1 - threshold), abs=1e-5)


def test_gates_harden_with_progress_and_are_hard_where_the_network_is_measured() -> None:
    scores = torch.randn(LAYER.shape, generator=stream("test", "scores")) / 10
    method = ContinuousSparsification(initial_score=-0.2, temperature=100.0, strength=0.5)
    everything = torch.ones(LAYER.shape, dtype=torch.bool)
    scale = 1 + exp(0.2)
    for progress in (0.0, 0.5, 0.99):
        edges = layer(scores, progress)
        gates = torch.sigmoid(100**progress * scores) * scale
        torch.testing.assert_close(method.weight(edges, everything), edges.weights * gates)
        penalty = method.penalty(network(edges))
        assert float(penalty) == pytest.approx(0.5 * float(gates.sum()), rel=1e-5)
    measured = layer(scores)
    mask = method.masks(network(measured))[LAYER.name]
    assert torch.equal(mask, (scores > 0) & measured.allowed)
    torch.testing.assert_close(method.weight(measured, mask), measured.weights * mask * scale)
    assert method.factors("fc1.weight", is_score=True).weight_decay == 0
    assert method.factors("fc1.weight", is_score=False) == (1.0, 1.0)


def test_options_are_checked_and_the_plugin_registers_its_methods() -> None:
    with pytest.raises(ValidationError, match="greater than 1"):
        ContinuousSparsification(temperature=1.0)
    assert register_components() == [SoftThreshold, ContinuousSparsification]


@pytest.mark.parametrize("cls", [SoftThreshold, ContinuousSparsification])
@pytest.mark.parametrize("options", [{}, {"initial_score": 0.3, "learning_rate": 2.0}])
def test_methods_keep_what_they_promise(
    cls: type[Parametrization], options: dict[str, Any]
) -> None:
    trial(cls, options)


def test_its_recipe_runs_and_reports_the_masks_that_it_measures(tmp_path: Path) -> None:
    installed = {plugin.distribution for plugin in Registry.load().plugins}
    done = run(
        CODE.with_name("recipes") / "soft.toml", out=tmp_path / "run", store=tmp_path / "store", profile="quick",
        jobs=1, device="cpu", trust=() if "lotteryfw-soft" in installed else (CODE,),
    )  # fmt: skip
    assert set(done.statuses.values()) == {"done"}
    rows = [row for row in done.levels if row.level == 1]
    assert {row.variant for row in rows} == {"ticket", "retrained", "random_mask"}
    kept = set()
    for path in (done.path / "tickets").rglob("level-01.safetensors"):
        kept.add(sum(int(mask.sum()) for mask in load_ticket(path).mask.values()))
    assert {row.weights_kept for row in rows if row.variant == "ticket"} == kept
