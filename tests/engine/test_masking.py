"""Learning masks through the engine: against a plain loop, resumed, diverged, and from recipe to results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recipes import changed, faults, load
from support.small import DATA, cell, engine_context, execute_one, kernel, lab, make
from support.trainings import run_training
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lotteryfw.api.errors import RecipeError, TrainingDiverged
from lotteryfw.api.rng import stream
from lotteryfw.cli.app import app
from lotteryfw.engine import Stopped, StoredOutcome
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.runner import run_study as run
from lotteryfw.search.jobs import Train
from lotteryfw.store import Store

torch.set_num_threads(1)
SGD = {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
WIDE = {"use": "mlp", "hidden": [32, 16]}


def learning(how: Any, density: float | None = None, steps: int = 20, **changes: Any) -> Train:
    """The job that learns a mask; `changes` as for `small.cell`."""
    changes = {"optimizer": SGD, "model": WIDE, "mask1": "constant", **changes}
    desk = lab(cell(steps, parametrization=make("parametrization", how), **changes))
    return replace(desk.job(desk.learn_mask(density)), kernel=kernel("mask_training"))


def trained(job: Train) -> Training:
    return run_training(TrainingGroup([job], engine_context()))


def bits(tensors: Any) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in tensors.items()}


def kept_by_sorting(scores: Tensor, keep: int) -> Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.abs().flatten().sort(descending=True, stable=True).indices[:keep]] = True
    return mask.reshape(scores.shape)


def edge_popup(
    job: Train, density: float, inputs: Tensor, labels: Tensor, momentum: float = 0.9
) -> dict[str, Tensor]:
    """Edge-popup on a fully connected network as anyone would write it down; the scores at the end."""
    layers = list(job.mask)
    weights = {name: job.values[name] for name in layers}
    scores = {name: job.scores[name].clone() for name in layers}
    velocity = {name: torch.zeros_like(scores[name]) for name in layers}
    for step in range(job.steps):
        epoch, place = divmod(step, job.steps_per_epoch)
        order = torch.randperm(len(labels), generator=stream(job.order_seed, "order", epoch))
        rows = order[place * job.batch : (place + 1) * job.batch]
        masks = {
            name: kept_by_sorting(scores[name], round(density * scores[name].numel()))
            for name in layers
        }
        effective = {name: (weights[name] * masks[name]).requires_grad_() for name in layers}
        x = inputs[rows].flatten(1)
        for name in layers:
            x = linear(x, effective[name])
            x = x if name == layers[-1] else x.relu()
        slopes = torch.autograd.grad(cross_entropy(x, labels[rows]), list(effective.values()))
        for name, slope in zip(layers, slopes, strict=True):
            velocity[name] = momentum * velocity[name] + slope * weights[name] * scores[name].sign()
            scores[name] -= 0.1 * velocity[name]
    return scores


def test_edge_popup_on_digits_is_the_plain_loop_of_twenty_lines() -> None:
    sgd = {"use": "sgd", "lr": 0.1, "momentum": 0.9}
    job = learning(
        "top_k",
        0.5,
        150,
        data="digits",
        batch=32,
        optimizer=sgd,
        model={"use": "mlp", "hidden": [40], "bias": False},
    )
    ours = trained(job)
    train = make("data", "digits").load(Path()).train
    scores = edge_popup(job, 0.5, train.inputs / 255, train.labels)
    ended = ours.member.state().scores
    masks: list[dict[str, Tensor]] = [{}, {}]
    for name, mask in job.mask.items():
        torch.testing.assert_close(ended[name], scores[name], rtol=1e-5, atol=1e-5)
        for found, learned in zip(masks, (ended[name], scores[name]), strict=True):
            found[name] = kept_by_sorting(learned, round(0.5 * mask.numel()))
        assert torch.equal(masks[0][name], masks[1][name])
    test = make("data", "digits").load(Path()).test
    logits = logits_of(job, dict(job.values), masks[1], test.inputs / 255)
    accuracy = float((logits.argmax(1) == test.labels).double().mean())
    assert ours.metrics().test_accuracy == pytest.approx(accuracy, abs=1e-12)
    assert accuracy > 0.6


@pytest.mark.parametrize(
    "optimizer", [SGD, {"use": "adam", "lr": 0.05, "weight_decay": 0.1}], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("how", ["bernoulli", "top_k"])
def test_scores_learn_and_everything_else_stays_bit_for_bit(how: str, optimizer: Any) -> None:
    job = learning(how, 0.5 if how == "top_k" else None, 60, optimizer=optimizer)
    before, scores_before = bits(job.values), bits(job.scores)
    training = trained(job)
    after = training.member.state()
    assert bits(after.values) == before
    scores = bits(after.scores)
    assert scores.keys() == job.mask.keys()
    assert all(scores[name] != value for name, value in scores_before.items())
    curve = training.metrics().curve
    assert curve.validation_loss[-1] < curve.validation_loss[0]


def test_every_mask_of_a_training_has_exactly_its_budget() -> None:
    for density in (0.5, 0.103):
        job = learning("top_k", density)
        group = TrainingGroup([job], engine_context())
        kernel: Any = group.kernel
        seen: list[Any] = []

        def look(training: Training, kernel: Any = kernel, seen: list[Any] = seen) -> None:
            seen.append(kernel.masks)

        run_training(group, at_step=look)
        assert seen.pop(0) is None
        assert len(seen) == 20
        for masks in seen:
            assert {name: int(mask.sum()) for name, mask in masks.items()} == {
                name: round(density * mask.numel()) for name, mask in masks.items()
            }


def logits_of(
    job: Train, values: dict[str, Tensor], masks: dict[str, Tensor], inputs: Tensor
) -> Tensor:
    x = inputs.flatten(1)
    for name in job.mask:
        x = linear(x, values[name] * masks[name], values.get(name.replace("weight", "bias")))
        x = x if name == list(job.mask)[-1] else x.relu()
    return x


def test_an_evaluation_is_the_mean_over_sampled_masks() -> None:
    job = learning({"use": "bernoulli", "samples": 7})
    training = trained(job)
    state, test = training.member.state(), make("data", DATA).load(Path()).test
    values, scores = dict(state.values), state.scores
    losses, accuracies = [], []
    for draw in range(7):
        rng = stream(0, "masks", "evaluation", draw)
        masks = {
            name: torch.rand(mask.shape, generator=rng) < scores[name].sigmoid()
            for name, mask in job.mask.items()
        }
        logits = logits_of(job, values, masks, test.inputs)
        losses.append(float(cross_entropy(logits, test.labels)))
        accuracies.append(float((logits.argmax(1) == test.labels).double().mean()))
    assert len(set(losses)) == 7
    loss, accuracy = training.member.evaluate("test")
    assert accuracy == pytest.approx(sum(accuracies) / 7, abs=1e-12)
    assert loss == pytest.approx(sum(losses) / 7, rel=1e-5)


def test_masks_of_two_steps_differ_and_repeat_from_the_seed() -> None:
    def masks(job: Train) -> list[dict[str, bytes]]:
        kernel: Any = TrainingGroup([job], engine_context()).kernel
        return [bits(kernel.learned_mask.for_step(step)) for step in (0, 1)]

    job = learning("bernoulli")
    (first, second), again = masks(job), masks(job)
    assert [first, second] == again
    assert all(first[name] != second[name] for name in first)
    assert masks(replace(job, mask_seed=1))[0] != first


def _is_at(step: int, done: int, of: int) -> bool:
    return done == step


@pytest.mark.parametrize(
    ("how", "density"),
    [("bernoulli", None), ("top_k", 0.5), ({"use": "top_k", "every": 7}, 0.5)],
    ids=["bernoulli", "top_k", "top_k every 7"],
)
def test_a_learning_that_was_stopped_goes_on_bit_identically(
    how: Any, density: float | None, tmp_path: Path
) -> None:
    job = learning(how, density, 40)
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    execute_one(job, store, engine_context(), lambda done, of: False)
    for stop in (11, 26):
        with pytest.raises(Stopped):
            execute_one(job, other, engine_context(), partial(_is_at, stop))
    execute_one(job, other, engine_context(), lambda done, of: False)
    one, two = StoredOutcome(store, job.key), StoredOutcome(other, job.key)
    assert bits(one.tensors().encoded()) == bits(two.tensors().encoded())
    assert one.metrics == two.metrics


def test_a_mask_that_is_refreshed_now_and_then_stays_in_between() -> None:
    job = learning({"use": "top_k", "every": 5}, 0.5)
    group = TrainingGroup([job], engine_context())
    kernel: Any = group.kernel
    used: list[dict[str, bytes]] = []
    training = run_training(group, at_step=lambda training: used.append(bits(kernel.masks or {})))
    assert [used[step] == used[step - 1] for step in range(2, 21)] == [
        step % 5 != 1 for step in range(2, 21)
    ]
    assert (
        training.metrics().early_test_accuracy > 0
    )  # the best state, which is not the last, holds masks too


def diverging() -> Iterator[Any]:
    rate = {"use": "sgd", "lr": 1e6, "momentum": 0.9, "weight_decay": 1e-1}
    yield pytest.param(learning("top_k", 0.5, 60, optimizer=rate), id="a rate of a million")
    nan = learning("bernoulli", steps=20)
    broken = {name: torch.full_like(score, torch.nan) for name, score in nan.scores.items()}
    yield pytest.param(replace(nan, scores=broken), id="NaN, bernoulli")
    top = learning("top_k", 0.5, 20)
    broken = {name: torch.full_like(score, torch.nan) for name, score in top.scores.items()}
    yield pytest.param(replace(top, scores=broken), id="NaN, top_k")


@pytest.mark.parametrize("job", list(diverging()))
def test_scores_that_are_no_numbers_any_more_are_told_as_diverged(job: Train) -> None:
    with pytest.raises(TrainingDiverged):
        trained(job)


STUDY: dict[str, Any] = {
    "name": "masks",
    "data": "digits",
    "model": {"use": "mlp", "hidden": [30]},
    "mask1": "constant",
    "parametrization": {"use": "bernoulli", "samples": 3, "rescale": "dynamic"},
    "search": {"use": "supermask", "train_weights": True},
    "train": {
        "length": "120it",
        "batch": 32,
        "optimizer": {"use": "adam", "lr": 1e-2},
        "mask_optimizer": {"use": "sgd", "lr": 50.0, "momentum": 0.9},
    },
    "evaluate": {"points": 2},
}


def test_a_diverging_cell_is_told_and_the_study_goes_on(tmp_path: Path) -> None:
    optimizer = {"use": "sgd", "lr": 1e6, "weight_decay": 1.0}
    broken = STUDY | {"parametrization": "top_k", "search": {"use": "edge_popup"}}
    broken |= {"train": STUDY["train"] | {"mask_optimizer": optimizer}}
    done = run(broken, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    assert set(done.statuses.values()) == {"diverged"}


def test_weights_that_diverge_under_a_mask_leave_the_learned_level_alone(tmp_path: Path) -> None:
    broken = STUDY | {
        "train": STUDY["train"] | {"optimizer": {"use": "sgd", "lr": 1e18}},
        "seeds": [0],
    }
    done = run(broken, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    assert set(done.statuses.values()) == {"diverged"}
    assert {row.variant: row.status for row in done.levels} == {
        "ticket": "done", "thresholded": "done", "trained": "diverged"
    }  # fmt: skip


def test_a_supermask_study_from_recipe_to_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    monkeypatch.setenv("LOTTERYFW_STORE", str(tmp_path / "store"))
    (tmp_path / "masks.toml").write_text(toml(STUDY))
    said = CliRunner().invoke(
        app, ["recipe", str(tmp_path / "masks.toml"), "--out", str(tmp_path / "run")]
    )
    assert said.exit_code == 0, said.output
    levels = {row["variant"]: row for row in table(tmp_path / "run" / "levels.csv")}
    assert list(levels) == ["ticket", "thresholded", "trained"]
    assert {row["level"] for row in levels.values()} == {"1"}
    accuracy = {variant: float(row["test_accuracy"]) for variant, row in levels.items()}
    assert accuracy["ticket"] > 0.7, "a mask alone"
    assert accuracy["trained"] > accuracy["thresholded"] > 0.5
    assert int(levels["thresholded"]["steps"]) == 0
    assert int(levels["trained"]["steps"]) == 120
    assert len({row["density"] for row in levels.values()}) == 1


@pytest.mark.parametrize(
    ("rewind", "expected"),
    [("learning_rate", "7 7 6"), ({"use": "to_step", "step": "40%"}, "7 4 3")],
)
def test_cycles_of_unequal_length_run_as_planned(
    tmp_path: Path, rewind: Any, expected: str
) -> None:
    search = {"use": "iterative_edge_popup", "cycles": 3}
    study = STUDY | {"parametrization": "top_k", "search": search, "rewind": rewind}
    study |= {"train": STUDY["train"] | {"length": "20it"}}
    done = run(study, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    assert set(done.statuses.values()) == {"done"}
    # "40%" is step 3 of the first cycle, and it is that step which shorter ones go on from
    assert [row["steps"] for row in table(tmp_path / "run" / "levels.csv")] == expected.split()


def toml(table: dict[str, Any]) -> str:
    def value(of: Any) -> str:
        if isinstance(of, dict):
            return "{ " + ", ".join(f"{key} = {value(each)}" for key, each in of.items()) + " }"
        return str(of).lower() if isinstance(of, bool) else repr(of).replace("'", '"')

    return "\n".join(f"{key} = {value(each)}" for key, each in table.items())


def table(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_faults_of_recipes_that_learn_masks() -> None:
    (fault,) = faults(changed(search="supermask"))
    assert "parametrization: is required: the search 'supermask' learns masks" in fault
    assert 'parametrization = "bernoulli"' in fault
    assert '"top_k"' in fault
    train = changed()["train"] | {"mask_optimizer": {"use": "sgd", "lr": 1.0}}
    found = faults(
        changed(search="imp", parametrization="bernoulli", scores="glorot_normal", train=train)
    )
    for key in ("parametrization", "scores", "train.mask_optimizer"):
        assert any(f"{key}: has no effect: the search 'imp' does not use it" in fault and f"leave {key} out" in fault
                   for fault in found), found  # fmt: skip
    found = faults(changed(search="supermask", parametrization="bernouli"))
    assert any(
        "parametrization: " in fault and "did you mean 'bernoulli'" in fault for fault in found
    ), found


def test_what_masks_need_is_for_those_searches_of_a_study_that_learn_them() -> None:
    searches = {"search": ["imp", {"use": "edge_popup", "density": 0.3}]}
    mixed = changed(grid=searches, parametrization="top_k", scores="glorot_normal", seeds=[0])
    for recipe in (load(mixed), load(load(mixed).resolved())):
        imp, popup = recipe.cells
        assert (imp.parametrization, imp.scores) == (None, None)
        assert (popup.parametrization.use, popup.scores.use) == ("top_k", "glorot_normal")
    alone = load(changed(search="imp", seeds=[0])).cells[0]
    place = {"study": alone.study, "id": alone.id, "axes": {}, "axis_values": {}}
    assert replace(load(mixed).cells[0], **place) == alone
    # varied, it would make cells that differ in name only
    (fault,) = faults(changed(grid=searches | {"parametrization": ["top_k"]}))
    assert "grid.parametrization[0]: has no effect: the search 'imp' does not use it" in fault, (
        fault
    )


@pytest.mark.parametrize(
    ("search", "parametrizations", "message"),
    [
        (
            "supermask",
            [{"use": "bernoulli"}, "top_k"],
            "'top_k' needs a density, and the search 'supermask'",
        ),
        (
            "edge_popup",
            ["top_k", {"use": "bernoulli"}],
            "'bernoulli' cannot keep to a density, and the",
        ),
    ],
)
def test_a_density_that_is_missing_or_of_no_use_is_refused_before_training(
    search: str, parametrizations: list[Any], message: str, tmp_path: Path
) -> None:
    study = STUDY | {"search": search, "grid": {"parametrization": parametrizations}}
    with pytest.raises(RecipeError, match=message):
        run(study, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("search", "scope", "level"),
    [
        ({"use": "edge_popup", "density": 0.25}, "global", 1),
        (
            {"use": "iterative_edge_popup", "densities": [0.25, 0.1]},
            {"use": "global", "exclude": ["fc1*"]},
            1,
        ),
    ],
)
def test_a_diverged_row_has_the_level_and_the_density_that_was_asked_for(
    search: Any, scope: Any, level: int, tmp_path: Path
) -> None:
    optimizer = {"use": "sgd", "lr": 1e6, "weight_decay": 1.0}
    broken = STUDY | {"parametrization": "top_k", "search": search, "scope": scope}
    broken |= {"train": STUDY["train"] | {"mask_optimizer": optimizer}}
    # of the searches here only this one has several cycles
    if search["use"] == "iterative_edge_popup":
        broken["rewind"] = "learning_rate"
    done = run(broken, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    [row] = done.levels
    assert (row.status, row.level) == ("diverged", level)
    excluded = 64 * 30 if isinstance(scope, dict) else 0
    asked = 0.25 * (row.weights_total - excluded) + excluded
    assert row.weights_kept == round(asked)
    assert row.requested_density == pytest.approx(asked / row.weights_total)
    layers = dict(part.split("=") for part in row.layer_densities.split(";"))
    assert float(layers["fc2.weight"]) == pytest.approx(0.25, abs=0.01)
    assert float(layers["fc1.weight"]) == pytest.approx(1 if excluded else 0.25, abs=0.01)
    assert "the loss or the scores of the mask" in (done.path / "events.jsonl").read_text()


def test_of_weights_that_diverge_only_the_loss_is_named(tmp_path: Path) -> None:
    weights = STUDY["train"] | {"optimizer": {"use": "sgd", "lr": 1e30}}
    plain = {name: STUDY[name] for name in ("name", "data", "model")} | {"search": "imp"}
    del weights["mask_optimizer"]
    done = run(plain | {"train": weights}, out=tmp_path / "run", store=tmp_path / "store", jobs=1)
    [row] = done.levels
    assert (row.status, row.level, row.density) == ("diverged", 0, 1.0)
    assert "the loss stopped being finite" in (done.path / "events.jsonl").read_text()
