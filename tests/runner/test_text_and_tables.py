"""Data of tokens, and labels that are not one class each, from recipe to results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import REGISTRY, cell, dense_job, engine_context, kernel, make
from support.trainings import run_training
from torch import nn
from torch.nn.functional import cross_entropy

from lotteryfw import DataError, LotteryError, load_ticket
from lotteryfw.api.errors import ContractError
from lotteryfw.api.rng import stream
from lotteryfw.engine.dataset_loading import load_dataset
from lotteryfw.engine.train import TrainingGroup
from lotteryfw.registry import Registry
from lotteryfw.runner import run_study as run
from lotteryfw.testkit import trial

TEXT = {"use": "synthetic_text", "examples": 330, "classes": 3, "length": 6, "vocabulary": 20}
MODEL = {"use": "embedding_mlp", "width": 5, "hidden": [8]}
STUDY: dict[str, Any] = {
    "name": "text", "seeds": [0], "data": TEXT, "model": MODEL, "search": {"use": "imp", "levels": 2},
    "scope": {"use": "layerwise", "rate": 0.4}, "evaluate": {"points": 2},
    "train": {"length": "60it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.3, "momentum": 0.9}},
}  # fmt: skip

PLUGIN = '''
from lotteryfw import Dataset, DatasetInfo, DataSource, MaskCriterion, Need, Objective, Subset, hookimpl


class Table(DataSource):
    """Rows of four numbers, labelled by a number, or by two."""

    use = "table"
    targets: int = 2
    wrong: str = ""

    def facts(self, folder):
        shape = () if self.targets == 1 else (self.targets,)
        return DatasetInfo((4,), self.targets, 200, 50, 50, label_shape=shape)

    def load(self, folder):
        import torch

        def part(size, seed):
            x = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
            y = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], 1)[:, : self.targets]
            labels = y[:, 0] if self.targets == 1 else y
            return Subset(x, labels.double() if self.wrong else labels)

        return Dataset(part(200, 0), part(50, 1), part(50, 2))


class SquaredError(Objective):
    """The squared error of numbers; right is a number within a half."""

    use = "squared_error"
    labels_are_classes = False

    def why_not(self, info):
        numbers = info.label_shape[0] if info.label_shape else 1
        return None if numbers == info.classes else f"it reads {info.classes} numbers, not {numbers}"

    def loss(self, outputs, inputs, labels, reduction):
        losses = (outputs - labels.reshape(outputs.shape)).square().mean(1)
        return losses.mean() if reduction == "mean" else losses.sum()

    def correct(self, outputs, inputs, labels):
        return (outputs - labels.reshape(outputs.shape)).abs().amax(1) < 0.5


class NextToken(Objective):
    """Gives the probability of each token from all of them; labels are not read."""

    use = "next_token"
    labels_are_classes = False

    def output_size(self, shape, classes):
        return shape[0] * 20

    def why_not(self, info):
        return None if len(info.shape) == 1 else "it reads sequences"

    def loss(self, outputs, inputs, labels, reduction):
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(outputs.reshape(len(outputs), 20, -1), inputs, reduction="none").mean(1)
        return losses.mean() if reduction == "mean" else losses.sum()

    def correct(self, outputs, inputs, labels):
        return (outputs.reshape(len(outputs), 20, -1).argmax(1) == inputs).float().mean(1)


class Sensitivity(MaskCriterion):
    """Keeps weights of large gradient."""

    use = "sensitivity"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer):
        return (layer.gradient * layer.final).abs()


@hookimpl
def register_components():
    return [Table, SquaredError, NextToken, Sensitivity]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "tables.py"
    file.write_text(PLUGIN)
    return file


def study(folder: Path, *trust: Path, **changes: Any) -> Any:
    done = run(
        STUDY | changes,
        out=folder / "run",
        store=folder / "store",
        trust=trust,
        jobs=1,
        device="cpu",
    )
    assert set(done.statuses.values()) == {"done"}
    return done


def test_a_network_of_tokens_is_trained_as_in_a_plain_loop() -> None:
    sgd = {"use": "sgd", "lr": 0.3}
    job = replace(
        dense_job(cell(30, data=TEXT, model=MODEL, optimizer=sgd)), kernel=kernel("reference")
    )
    ended = run_training(TrainingGroup([job], engine_context())).member.state().values
    assert set(job.mask) == {"2.weight", "4.weight"}

    module = nn.Sequential(
        nn.Embedding(20, 5), nn.Flatten(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    module.load_state_dict(dict(job.values))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    data = make("data", TEXT).load(Path()).train
    assert data.inputs.dtype == torch.int64
    for step in range(30):
        epoch, place = divmod(step, job.steps_per_epoch)
        order = torch.randperm(330, generator=stream(job.order_seed, "order", epoch))
        rows = order[place * 16 : (place + 1) * 16]
        optimizer.zero_grad()
        cross_entropy(module(data.inputs[rows]), data.labels[rows]).backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(ended[name], value, rtol=1e-4, atol=1e-6)


def test_a_study_of_text_prunes_evaluates_and_probes(tmp_path: Path, plugin: Path) -> None:
    done = study(
        tmp_path, plugin, criterion="sensitivity", controls=["reinit", "random_mask"],
        evaluate={"points": 2, "train": True, "metrics": ["nll"]}, analyses=["linear_mode_connectivity"],
    )  # fmt: skip
    rows = {(row.level, row.variant): row for row in done.levels}
    assert rows[0, "ticket"].test_accuracy > 0.8
    assert rows[2, "ticket"].density == pytest.approx(0.36, abs=0.01)
    assert rows[2, "ticket"].metrics["train_nll"] >= 0
    (path,) = done.path.rglob("level-02.safetensors")
    ticket = load_ticket(path)
    assert ticket.values["0.weight"].shape == (20, 5)
    # embeddings are trained and not pruned
    assert set(ticket.mask) == {"2.weight", "4.weight"}


def test_masks_are_learned_over_networks_of_tokens(tmp_path: Path) -> None:
    search = {"use": "edge_popup", "density": 0.5}
    study(tmp_path, search=search, parametrization="top_k")


def test_labels_have_the_shape_that_the_objective_reads(tmp_path: Path, plugin: Path) -> None:
    table = {"data": {"use": "table"}, "model": {"use": "mlp", "hidden": [16]}}
    train = STUDY["train"] | {"objective": "squared_error", "optimizer": {"use": "sgd", "lr": 0.05}}
    for targets in (1, 2):
        changes = table | {"data": {"use": "table", "targets": targets}, "train": train}
        done = study(tmp_path / str(targets), plugin, **changes)
        assert done.levels[0].test_loss < 1.0
    text = study(tmp_path / "text", plugin, train=STUDY["train"] | {"objective": "next_token"})
    assert text.levels[0].test_accuracy > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mlp"}, r"model: .*'mlp' reads numbers, and the inputs are tokens"),
        ({"data": "digits"}, r"model: .*'embedding_mlp' reads tokens, and the inputs are numbers"),
        ({"train": STUDY["train"] | {"augment": ["flip"]}}, r"train.augment\[0\]: 'flip' changes images, and the inputs"),
        ({"data": {"use": "table"}, "model": "mlp"}, r"train.objective: 'classification' cannot read .*: it reads one class"),
    ],
)  # fmt: skip
def test_parts_that_cannot_read_the_data_are_refused_before_training(
    changes: dict[str, Any], message: str, tmp_path: Path, plugin: Path
) -> None:
    with pytest.raises(LotteryError, match=message):
        study(tmp_path, plugin, **changes)
    assert not list(tmp_path.rglob("outcome.json"))


def test_tokens_outside_the_vocabulary_and_wrong_types_are_refused(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = make("data", TEXT)
    whole = source.load(tmp_path)
    beyond = replace(whole.test, inputs=whole.test.inputs.clone())
    beyond.inputs[7, 2] = 20
    monkeypatch.setattr(type(source), "load", lambda self, folder: replace(whole, test=beyond))
    with pytest.raises(DataError, match=r"test has the token 20 at example 7; .* vocabulary of 20"):
        load_dataset(source, tmp_path)
    numbers = replace(whole.test, inputs=whole.test.inputs.float())
    monkeypatch.setattr(type(source), "load", lambda self, folder: replace(whole, test=numbers))
    with pytest.raises(ContractError, match=r"test has inputs torch.float32; they must be int64"):
        load_dataset(source, tmp_path)
    table = Registry.load([plugin]).create("data", {"use": "table", "wrong": "dtype"})
    with pytest.raises(ContractError, match=r"labels torch.float64; they must be int64 or float32"):
        load_dataset(table, tmp_path)  # type: ignore[arg-type]


def test_trials_try_the_inputs_and_labels_that_a_component_reads(plugin: Path) -> None:
    registry = Registry.load([plugin])
    trial(REGISTRY.find("model", "embedding_mlp").cls)
    trial(REGISTRY.find("data", "synthetic_text").cls)
    for kind, use in (
        ("objective", "squared_error"),
        ("objective", "next_token"),
        ("data", "table"),
    ):
        trial(registry.find(kind, use).cls)
