"""Weights and masks trained together: against plain loops, resumed, and from recipe to results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT
from support.small import DATA, cell, execute_one, reference_kernel
from support.trainings import run_training
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lotteryfw import UpdateFactors, load_ticket
from lotteryfw.api.component import Component
from lotteryfw.api.errors import ContractError, LotteryError
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.engine import EngineContext, Stopped, StoredOutcome
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.engine.trained_parameters import regroup
from lotteryfw.registry import Registry
from lotteryfw.runner import run_study as run
from lotteryfw.search.jobs import Spec, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store

SOFT = ROOT / "plugins" / "lotteryfw-soft" / "src" / "lotteryfw_soft" / "__init__.py"
REGISTRY = Registry.load([SOFT])
STR = {"use": "soft_threshold", "initial_score": -4.0, "decay": 5.0, "learning_rate": 2.0}
CS = {"use": "continuous_sparsification", "initial_score": -0.05, "strength": 1e-3}
BOTH = pytest.mark.parametrize("how", [STR, CS], ids=["soft_threshold", "continuous"])
SGD = {"use": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}

Effective = Callable[[Tensor, Tensor, float], Tensor]
"""The weights that a layer computes with, from its weights, its scores and the progress."""


def context() -> EngineContext:
    return EngineContext(REGISTRY, Path("unused"), "cpu")


def described(component: Component, clock: Clock) -> Spec:
    offer = REGISTRY.offer_of(component)
    return Spec(offer.kind, offer.full_name, offer.provider, component.options(clock))


def joint(how: Any, steps: int = 40, **changes: Any) -> Train:
    """The job that trains weights and scores; `changes` as for `small.cell`."""
    changes = {"optimizer": SGD, "model": {"use": "mlp", "hidden": [12, 8]}, **changes}
    parametrization = REGISTRY.create("parametrization", how)
    of = cell(steps, parametrization=parametrization, **changes)
    lab = CellLab(of, described, Path("unused"), "cpu", reference_kernel)
    job = lab.job(lab.learn_mask())
    assert isinstance(job, Train)
    return job


def trained(job: Train) -> Training:
    return run_training(TrainingGroup([job], context()))


def soft_threshold(weight: Tensor, score: Tensor, progress: float) -> Tensor:
    return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(score))


def soft_gate(weight: Tensor, score: Tensor, progress: float) -> Tensor:
    return weight * torch.sigmoid(200**progress * score) * (1 + exp(0.05))


def plain_loop(
    job: Train,
    effective: Effective,
    score_rate: float,
    score_decay: float,
    strength: float,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Joint training of a fully connected network as anyone would write it; weights and scores.

    `score_rate` and `score_decay` are the factors of learning rate and weight decay for scores.
    """
    data = REGISTRY.create("data", DATA).load(Path()).train
    layers = list(job.mask)
    weights = {name: value.clone().requires_grad_() for name, value in job.values.items()}
    scores = {name: value.clone().requires_grad_() for name, value in job.scores.items()}
    tensors = [*weights.values(), *scores.values()]
    rates = [0.05] * len(weights) + [0.05 * score_rate] * len(scores)
    decays = [1e-2] * len(weights) + [1e-2 * score_decay] * len(scores)
    velocity = [torch.zeros_like(tensor) for tensor in tensors]
    for step in range(job.steps):
        epoch, place = divmod(step, job.steps_per_epoch)
        order = torch.randperm(len(data.labels), generator=stream(job.order_seed, "order", epoch))
        rows = order[place * job.batch : (place + 1) * job.batch]
        progress = step / job.steps
        x = data.inputs[rows].flatten(1)
        penalty = torch.zeros(())
        for name in layers:
            bias = weights[name.replace("weight", "bias")]
            x = linear(x, effective(weights[name], scores[name], progress), bias)
            x = x if name == layers[-1] else x.relu()
            if strength:
                gates = torch.sigmoid(200**progress * scores[name]) * (1 + exp(0.05))
                penalty = penalty + strength * gates.sum()
        loss = cross_entropy(x, data.labels[rows]) + penalty
        gradients = torch.autograd.grad(loss, tensors)
        with torch.no_grad():
            for index, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
                velocity[index] = 0.9 * velocity[index] + gradient + decays[index] * tensor
                tensor -= rates[index] * velocity[index]
    return weights, scores


@pytest.mark.parametrize(
    ("how", "effective", "options"),
    [(STR, soft_threshold, (2.0, 5.0, 0.0)), (CS, soft_gate, (1.0, 0.0, 1e-3))],
    ids=["soft_threshold", "continuous"],
)
def test_joint_training_is_the_plain_loop(
    how: Any, effective: Effective, options: tuple[float, float, float]
) -> None:
    job = joint(how, 60)
    training = trained(job)
    ended = training.member.state()
    weights, scores = plain_loop(job, effective, *options)
    for name, value in weights.items():
        assert not torch.equal(ended.values[name], job.values[name]), name
        torch.testing.assert_close(ended.values[name], value.detach(), rtol=1e-4, atol=1e-5)
    for name, value in scores.items():
        assert not torch.equal(ended.scores[name], job.scores[name]), name
        # Gates at the end are steep: at a temperature of 200 rounding grows.
        torch.testing.assert_close(ended.scores[name], value.detach(), rtol=1e-3, atol=1e-4)

    # What is measured is the network under the mask that it ends with.
    test = REGISTRY.create("data", DATA).load(Path()).test
    x = test.inputs.flatten(1)
    kept = 0
    for name in job.mask:
        weight, score = weights[name].detach(), scores[name].detach()
        if how is STR:
            weight = soft_threshold(weight, score, 1.0)
        else:
            weight = weight * (score > 0) * (1 + exp(0.05))
        kept += int(weight.count_nonzero())
        x = linear(x, weight, weights[name.replace("weight", "bias")].detach())
        x = x if name == list(job.mask)[-1] else x.relu()
    assert 0 < kept < sum(mask.numel() for mask in job.mask.values())
    metrics = training.metrics()
    assert metrics.test_loss == pytest.approx(float(cross_entropy(x, test.labels)), rel=1e-4)
    # An earlier step has another density than the one that is reported.
    assert metrics.early_stop_step == 60


@BOTH
@pytest.mark.parametrize("optimizer", [SGD, {"use": "adam", "lr": 1e-2}], ids=["sgd", "adam"])
def test_a_joint_training_that_was_stopped_goes_on_bit_identically(
    how: Any, optimizer: Any, tmp_path: Path
) -> None:
    job = joint(how, optimizer=optimizer)
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    execute_one(job, store, context(), lambda done, of: False)
    for stop in (11, 26):
        with pytest.raises(Stopped):
            execute_one(job, other, context(), partial(_is_at, stop))
    execute_one(job, other, context(), lambda done, of: False)
    whole, resumed = StoredOutcome(store, job.key), StoredOutcome(other, job.key)
    expected, actual = whole.tensors().encoded(), resumed.tensors().encoded()
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name
    assert whole.metrics == resumed.metrics


def _is_at(step: int, done: int, of: int) -> bool:
    return done == step


def test_the_optimizer_names_weights_and_scores_apart() -> None:
    # Without decay for scores, thresholds rise by their gradient alone.
    optimizer = SGD | {"no_decay": ["scores/*", "bias"], "weight_decay": 0.5}
    decaying = trained(joint(STR, optimizer=SGD | {"weight_decay": 0.5})).member.state().scores
    exempt = trained(joint(STR, optimizer=optimizer)).member.state().scores
    for name, value in exempt.items():
        assert float(value) < float(decaying[name]) - 0.5


def test_groups_are_split_by_factors_and_keep_their_own_options() -> None:
    names = ["a", "b", "c"]
    parameters = {name: torch.zeros(2, requires_grad=True) for name in names}
    optimizer = torch.optim.SGD(
        [
            {"params": [parameters["a"], parameters["b"]], "weight_decay": 0.4},
            {"params": [parameters["c"]], "lr": 2.0},
        ],
        lr=1.0,
    )
    factors = {"a": UpdateFactors(0.5, 0.25), "b": UpdateFactors(), "c": UpdateFactors(3.0)}
    regroup(optimizer, parameters, factors.__getitem__, "here")
    options = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert options == [(0.5, 0.1), (1.0, 0.4), (6.0, 0.0)]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1]
    for wrong in (UpdateFactors(-1.0), UpdateFactors(1.0, float("nan")), (1.0, 1.0)):
        with pytest.raises(ContractError, match=r"here returned .*UpdateFactors of finite numbers"):
            regroup(optimizer, parameters, lambda name, wrong=wrong: wrong, "here")


@pytest.mark.parametrize("penalty", [1.0, torch.zeros(2), torch.tensor(1)])
def test_a_penalty_that_is_no_number_is_refused_by_name(
    penalty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = joint(CS)
    cls = REGISTRY.find("parametrization", "continuous_sparsification").cls
    monkeypatch.setattr(cls, "penalty", lambda self, net: penalty)
    with pytest.raises(ContractError, match=r"continuous_sparsification.*penalty.. returned"):
        trained(job)


STUDY: dict[str, Any] = {
    "name": "soft", "data": "digits", "model": {"use": "mlp", "hidden": [30]}, "seeds": [0],
    "parametrization": CS | {"strength": 1e-5}, "evaluate": {"points": 2}, "controls": ["random_mask"],
    "search": {"use": "joint_training", "retrain": True},
    "train": {"length": "120it", "batch": 32, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
}  # fmt: skip


@pytest.mark.parametrize("rewind", ["to_init", {"use": "to_step", "step": "10it"}])
def test_a_joint_study_reports_the_density_of_the_network_it_measures(
    rewind: Any, tmp_path: Path
) -> None:
    done = run(STUDY | {"rewind": rewind}, out=tmp_path / "run", store=tmp_path / "store", jobs=1,
               trust=[SOFT])  # fmt: skip
    assert set(done.statuses.values()) == {"done"}
    rows = {(row.level, row.variant): row for row in done.levels}
    variants = {(0, "ticket"), (1, "ticket"), (1, "retrained"), (1, "random_mask")}
    assert set(rows) == variants
    (path,) = (done.path / "tickets").rglob("level-01.safetensors")
    kept = sum(int(mask.sum()) for mask in load_ticket(path).mask.values())
    row = rows[1, "ticket"]
    assert 0 < kept < row.weights_total
    assert row.weights_kept == kept
    assert row.requested_density == row.density == kept / row.weights_total
    assert row.early_stop_step == row.steps == 120
    assert rows[1, "retrained"].steps == (120 if rewind == "to_init" else 110)
    assert row.test_accuracy > 0.8


def test_scores_of_another_shape_take_no_initialiser(tmp_path: Path) -> None:
    wrong = STUDY | {"parametrization": STR, "scores": "glorot_normal"}
    with pytest.raises(LotteryError, match=r"scores: .*soft_threshold.*leave `scores` out"):
        run(wrong, out=tmp_path / "run", store=tmp_path / "store", jobs=1, trust=[SOFT])
    assert not (tmp_path / "store" / "objects").exists()


@pytest.mark.parametrize(
    "search", [{"use": "edge_popup", "density": 0.5}, {"use": "joint_training", "density": 0.5}]
)
def test_a_density_that_a_parametrization_cannot_keep_is_refused(
    search: Any, tmp_path: Path
) -> None:
    with pytest.raises(LotteryError, match="cannot keep to a density"):
        run(STUDY | {"search": search}, out=tmp_path / "run", store=tmp_path / "store", jobs=1,
            trust=[SOFT])  # fmt: skip
