"""Penalties on weights and distillation: against plain loops, and from recipe to results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed import run_killed
from support.small import DATA, REGISTRY, cell, dense_job, engine_context, kernel
from support.trainings import run_training
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, softmax

from lotteryfw import LotteryError, load_ticket
from lotteryfw.api.errors import ContractError
from lotteryfw.api.rng import stream
from lotteryfw.engine import EngineContext, KernelDispatcher
from lotteryfw.engine.kernels.dispatch import descriptions
from lotteryfw.engine.train import TrainingGroup
from lotteryfw.runner import run_study as run
from lotteryfw.search.jobs import Train, from_plain
from lotteryfw.std.penalties import Distillation
from lotteryfw.store import Store

Penalty = Callable[[list[Tensor]], Tensor]
PLAIN_SGD = {"use": "sgd", "lr": 0.1}


def plain_loop(
    job: Train, penalty: Penalty | None = None, teacher: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """SGD on a fully connected network as anyone would write it; the parameters at the end.

    With a teacher the loss is a tenth the labels' and nine tenths the teacher's, at T = 4.
    """
    data = REGISTRY.create("data", DATA).load(Path()).train
    weights = {name: value.clone().requires_grad_() for name, value in job.values.items()}
    for step in range(job.steps):
        epoch, place = divmod(step, job.steps_per_epoch)
        order = torch.randperm(len(data.labels), generator=stream(job.order_seed, "order", epoch))
        rows = order[place * job.batch : (place + 1) * job.batch]
        inputs, labels = data.inputs[rows], data.labels[rows]
        logits = forward(weights, list(job.mask), inputs)
        loss = cross_entropy(logits, labels)
        if teacher is not None:
            taught = softmax(forward(teacher, list(job.mask), inputs) / 4, 1)
            student = softmax(logits / 4, 1)
            divergence = (taught * (taught.log() - student.log())).sum() / len(labels)
            loss = 0.1 * loss + 0.9 * 16 * divergence
        if penalty is not None:
            loss = loss + penalty([weights[name] for name in job.mask])
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                weight -= 0.1 * gradient
                if name in job.mask:
                    weight *= job.mask[name]
    return {name: weight.detach() for name, weight in weights.items()}


def forward(weights: dict[str, Tensor], layers: list[str], inputs: Tensor) -> Tensor:
    x = inputs.flatten(1)
    for name in layers:
        x = linear(x, weights[name], weights[name.replace("weight", "bias")])
        x = x if name == layers[-1] else x.relu()
    return x


def magnitudes(weights: list[Tensor]) -> Tensor:
    total = torch.zeros(())
    for weight in weights:
        for row in weight:
            for value in row:
                total = total + 1e-2 * value.abs()
    return total


def unit_norms(weights: list[Tensor]) -> Tensor:
    total = torch.zeros(())
    for weight in weights:
        for row in weight:
            total = total + 1e-2 * len(row) ** 0.5 * (row**2).sum().sqrt()
    return total


@pytest.mark.parametrize(("use", "penalty"), [("l1", magnitudes), ("group_lasso", unit_norms)])
def test_a_penalty_is_the_plain_loop(use: str, penalty: Penalty) -> None:
    objective = {"use": use, "strength": 1e-2}
    job = replace(
        dense_job(cell(30, optimizer=PLAIN_SGD, objective=objective)), kernel=kernel("reference")
    )
    training = run_training(TrainingGroup([job], engine_context()))
    ended = training.member.state().values
    expected = plain_loop(job, penalty)
    without = plain_loop(job)
    for name, value in expected.items():
        torch.testing.assert_close(ended[name], value, rtol=1e-4, atol=1e-6)
    for name in job.mask:
        assert float(expected[name].abs().sum()) < float(without[name].abs().sum())
    # The reported losses are those of the objective inside.
    test = REGISTRY.create("data", DATA).load(Path()).test
    loss = cross_entropy(forward(expected, list(job.mask), test.inputs), test.labels)
    assert training.metrics().test_loss == pytest.approx(float(loss), rel=1e-4)


def test_a_learned_mask_is_penalised_by_the_weights_that_the_network_computes_with() -> None:
    from support.small import lab, make

    def scores(objective: Any) -> dict[str, Tensor]:
        of = cell(
            20, objective=objective, optimizer=PLAIN_SGD, parametrization=make("parametrization", "bernoulli")
        )  # fmt: skip
        desk = lab(of)
        job = replace(desk.job(desk.learn_mask()), kernel=kernel("mask_training"))
        state = run_training(TrainingGroup([job], engine_context())).member.state()
        return dict(state.scores)

    plain = scores("classification")
    for name, value in scores({"use": "l1", "strength": 1.0}).items():
        assert float(value.mean()) < float(plain[name].mean())


def test_no_fast_kernel_trains_a_penalty_or_a_teacher() -> None:
    choose = KernelDispatcher(engine_context())
    for objective in ("l1", "group_lasso", "distillation"):
        assert choose(dense_job(cell(objective=objective)), "auto").name == "reference"
    assert choose(dense_job(cell()), "auto").name != "reference"
    for name in ("fused", "sparse", "lockstep", "compact"):
        with pytest.raises(LotteryError, match="the objective 'lotteryfw/l1' has a penalty or a"):
            choose(dense_job(cell(objective="l1")), name)
    assert {"reference", "mask_training"} < {kernel.name for kernel in descriptions()}


@pytest.mark.parametrize("penalty", [0.1, torch.zeros(3)])
def test_a_penalty_that_is_no_number_is_refused(
    penalty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = REGISTRY.find("objective", "l1").cls
    monkeypatch.setattr(cls, "penalty", lambda self, weights: penalty)
    job = replace(dense_job(cell(objective="l1")), kernel=kernel("reference"))
    with pytest.raises(ContractError, match=r"objective 'lotteryfw/l1'.*penalty\(\) returned"):
        run_training(TrainingGroup([job], engine_context()))


# Distillation, from recipe to results

STUDY: dict[str, Any] = {
    "name": "taught", "seeds": [0], "data": DATA, "model": {"use": "mlp", "hidden": [8, 6]},
    "search": {"use": "imp", "levels": 2}, "evaluate": {"points": 2}, "scope": {"use": "layerwise", "rate": 0.4},
    "train": {"length": "30it", "batch": 16, "optimizer": PLAIN_SGD, "objective": "distillation"},
}  # fmt: skip


def taught(folder: Path, store: Path, **changes: Any) -> Any:
    done = run(STUDY | changes, out=folder, store=store, jobs=1, device="cpu")
    assert set(done.statuses.values()) == {"done"}
    return done


def jobs_in(store: Path) -> list[dict[str, Any]]:
    """Return the plain data of every training in a store, by its number of steps from the start."""
    records = [json.loads(path.read_text()) for path in store.rglob("outcome.json")]
    return [record["job"] for record in records if record["job"]["job"] == "Train"]


def test_distillation_from_the_dense_run_is_the_plain_loop(tmp_path: Path) -> None:
    done = taught(tmp_path / "run", tmp_path / "store")
    trainings = jobs_in(tmp_path / "store")
    teachers = {job["teacher"] for job in trainings}
    (key,) = teachers - {""}
    assert [job["teacher"] for job in trainings].count("") == 1

    store = Store(tmp_path / "store")
    context = EngineContext(REGISTRY, tmp_path, "cpu", store)
    from lotteryfw.engine import StoredOutcome

    dense = dict(StoredOutcome(store, key).tensors().values)
    (path,) = done.path.rglob("level-01.safetensors")
    ticket = load_ticket(path)
    plain = next(job for job in trainings if job["teacher"])
    job = from_plain(
        {**plain, "snapshots": []}, values=dict(ticket.values), mask=dict(ticket.mask), optimizer_state=None, scores={}
    )  # fmt: skip
    assert isinstance(job, Train)
    ended = run_training(TrainingGroup([job], context)).member.state().values
    expected = plain_loop(job, teacher=dense)
    alone = plain_loop(job)
    for name, value in expected.items():
        torch.testing.assert_close(ended[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(ended[name], alone[name], rtol=1e-3, atol=1e-4)


def test_the_teacher_is_in_the_key_and_trained_once(tmp_path: Path) -> None:
    taught(tmp_path / "a", tmp_path / "store")
    first = len(jobs_in(tmp_path / "store"))
    assert first == 3
    taught(tmp_path / "b", tmp_path / "store")
    assert len(jobs_in(tmp_path / "store")) == first
    # Another dense run is another teacher, and nothing of the first is taken for it.
    taught(tmp_path / "c", tmp_path / "store", seeds=[1])
    assert len({job["teacher"] for job in jobs_in(tmp_path / "store")}) == 3


def test_a_plan_counts_distilled_trainings_before_and_after(tmp_path: Path) -> None:
    from lotteryfw.runner import StudyContext

    context = StudyContext(STUDY, store=tmp_path / "store")
    plan = context.plan()
    assert (plan.unique, plan.stored) == (3, 0)
    taught(tmp_path / "a", tmp_path / "store")
    plan = StudyContext(STUDY, store=tmp_path / "store").plan()
    assert (plan.unique, plan.stored) == (3, 3)


@pytest.mark.parametrize("steps", [40, 75])
def test_killed_with_a_teacher_it_ends_with_the_same_bits(steps: int, tmp_path: Path) -> None:
    whole = taught(tmp_path / "whole", tmp_path / "whole-store")
    run_killed(STUDY, tmp_path / "run", tmp_path / "store", [], steps)
    done = taught(tmp_path / "run", tmp_path / "store")
    assert [row.test_loss for row in done.levels] == [row.test_loss for row in whole.levels]
    for path in whole.path.rglob("*.safetensors"):
        other = load_ticket(done.path / path.relative_to(whole.path))
        for name, value in load_ticket(path).values.items():
            assert torch.equal(value, other.values[name]), name


def test_a_ticket_without_a_dense_training_has_no_teacher_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=r"'distillation' compares with the cell's dense"):
        run(
            STUDY | {"search": {"use": "at_init", "densities": [0.5]}},
            out=tmp_path / "run", store=tmp_path / "store", jobs=1, device="cpu",
        )  # fmt: skip
    assert not list((tmp_path / "store").rglob("outcome.json"))


def test_the_loss_of_distillation_is_the_inner_one_without_a_teacher() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    objective = Distillation(share=0.5, temperature=2.0)
    inputs = torch.zeros(5, 1)
    assert torch.equal(
        objective.loss(logits, inputs, labels, "mean"), cross_entropy(logits, labels)
    )
    same = objective.taught_loss(logits, logits, inputs, labels)
    torch.testing.assert_close(same, 0.5 * cross_entropy(logits, labels))
