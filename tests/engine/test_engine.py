"""The reference kernel against plain loops, and the promises it makes about frozen weights, checkpoints and figures."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from support.small import (
    DATA,
    cell,
    dense_job,
    engine_context,
    execute_one,
    gradient_job,
    kernel,
    make,
)
from support.trainings import of_network, run_training
from torch import nn
from torch.nn.functional import cross_entropy

from lotteryfw.api.data import Dataset
from lotteryfw.api.errors import ContractError, LotteryError, TrainingDiverged
from lotteryfw.api.kinds import ModelFamily
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.engine import (
    DamagedJob,
    EngineContext,
    Stopped,
    StoredOutcome,
    spool,
    unspool,
)
from lotteryfw.engine.checkpoint import Checkpoints
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.probe_job import run_probe
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train, digest, state_key
from lotteryfw.store import Store, seal

torch.set_num_threads(1)


def trained(job: Train) -> Training:
    return run_training(TrainingGroup([job], engine_context()))


def sparse(job: Train, frozen: float = 0.0, density: float = 0.3) -> Train:
    """The job with random masks; dead weights frozen at 0, or at `frozen` times what they were."""
    mask = {
        name: torch.rand(m.shape, generator=stream("mask", name)) < density
        for name, m in job.mask.items()
    }
    values = {
        n: torch.where(mask[n], v, v * frozen + 0.0) if n in mask else v
        for n, v in job.values.items()
    }
    return replace(job, mask=mask, values=values)


def bits(tensors: Any) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in tensors.items()}


def load_synthetic() -> Dataset:
    splits: Dataset = make("data", DATA).load(Path())
    return splits


@pytest.mark.parametrize(
    "optimizer",
    [
        ({"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
         lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True)),
        ({"use": "adam", "lr": 1e-2}, lambda p: torch.optim.Adam(p, lr=1e-2, fused=True)),
    ],
)  # fmt: skip
def test_a_dense_training_is_bit_equal_to_a_plain_loop(optimizer: Any) -> None:
    job = dense_job(cell(45, optimizer=optimizer[0], schedule={"use": "cosine"}))
    ours = trained(job)

    splits, clock = load_synthetic(), Clock(job.total, job.steps_per_epoch)
    model = make("model", {"use": "mlp", "hidden": [8, 6]}).build((1, 4, 4), 3)
    model.load_state_dict(dict(job.values))
    loop = optimizer[1](model.parameters())
    rate = loop.param_groups[0]["lr"]
    for step in range(45):
        epoch, place = divmod(step, 20)  # 330 // 16 whole batches
        order = torch.randperm(330, generator=stream(0, "order", epoch))[
            place * 16 : (place + 1) * 16
        ]
        loop.param_groups[0]["lr"] = rate * make("schedule", "cosine").factor(step, clock)
        loop.zero_grad()
        cross_entropy(model(splits.train.inputs[order]), splits.train.labels[order]).backward()
        loop.step()
    assert bits(ours.member.state().values) == bits(model.state_dict())


def test_a_masked_training_equals_a_plain_loop_that_masks_weights_and_gradients() -> None:
    job = sparse(dense_job(cell(30, optimizer={"use": "sgd", "lr": 0.1, "momentum": 0.9})))
    ours = trained(job)

    splits = load_synthetic()
    model = make("model", {"use": "mlp", "hidden": [8, 6]}).build((1, 4, 4), 3)
    model.load_state_dict(dict(job.values))
    loop = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(30):
        epoch, place = divmod(step, 20)
        order = torch.randperm(330, generator=stream(0, "order", epoch))[
            place * 16 : (place + 1) * 16
        ]
        loop.zero_grad()
        cross_entropy(model(splits.train.inputs[order]), splits.train.labels[order]).backward()
        for name, parameter in model.named_parameters():
            if name in job.mask:
                parameter.grad *= job.mask[name]
        loop.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours.member.state().values[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [0.0, 1.0])
@pytest.mark.parametrize(
    "optimizer",
    [
        {"use": "sgd", "lr": 0.3, "momentum": 0.9, "weight_decay": 0.1},
        {"use": "adam", "lr": 0.05, "weight_decay": 0.1},
        {"use": "adamw", "lr": 0.05, "weight_decay": 0.5},
        {"use": "rmsprop", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
    ],
    ids=lambda table: table["use"],
)
def test_frozen_weights_stay_bit_constant_under_every_optimizer(
    optimizer: Any, frozen: float
) -> None:
    job = sparse(dense_job(cell(30, optimizer=optimizer)), frozen)
    after = trained(job).member.state().values
    moved = False
    for name, mask in job.mask.items():
        assert bits({name: after[name][~mask]}) == bits({name: job.values[name][~mask]})
        moved |= bool((after[name][mask] != job.values[name][mask]).all())
    assert moved


def test_figures_count_the_last_partial_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lotteryfw.engine.device_dataset.EVALUATION_CHUNK", 40)
    monkeypatch.setattr(DeviceDataset.batches, "__defaults__", (40,))  # 66 test examples: 40 and 26
    ours = trained(dense_job(cell(15)))
    figures, test = ours.metrics(), load_synthetic().test
    model = make("model", {"use": "mlp", "hidden": [8, 6]}).build((1, 4, 4), 3)
    model.load_state_dict(ours.member.state().values)
    logits = model(test.inputs)
    assert figures.test_accuracy == (logits.argmax(1) == test.labels).sum().item() / 66
    assert figures.test_loss == pytest.approx(cross_entropy(logits, test.labels).item(), rel=1e-5)


class Shifting(nn.Module):
    """Changes its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images -= 1.0
        logits: torch.Tensor = self.fc(images.flatten(1))
        return logits


def test_a_network_that_changes_its_inputs_in_place_leaves_the_data_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = of_network(dense_job(cell()), Shifting(), monkeypatch)
    network = TrainedNetwork(job, engine_context())
    figures = network.evaluate("validation")
    assert network.evaluate("validation") == figures


def test_the_early_stopping_step_is_that_of_the_lowest_validation_loss() -> None:
    noisy = {
        **DATA,
        "noise": 3.0,
        "examples": 60,
    }  # so that it over-fits and the best step is not the last
    ours = trained(dense_job(cell(200, data=noisy, optimizer={"use": "adam", "lr": 0.01})))
    figures = ours.metrics()
    curve = figures.curve
    assert list(curve.step) == list(range(0, 201, 5))
    lowest = min(range(len(curve.step)), key=lambda place: curve.validation_loss[place])
    assert 0 < figures.early_stop_step == curve.step[lowest] < 200
    assert figures.early_validation_loss == curve.validation_loss[lowest]
    shorter = trained(replace(dense_job(cell(200, data=noisy, optimizer={"use": "adam", "lr": 0.01})),
                              steps=figures.early_stop_step))  # fmt: skip
    assert figures.early_test_accuracy == shorter.metrics().test_accuracy


def test_a_stopped_training_goes_on_bit_identically(tmp_path: Path) -> None:
    whole = cell(
        60, optimizer={"use": "adam", "lr": 0.01}, rewind={"use": "to_step", "step": "10it"}
    )
    job = sparse(dense_job(whole))
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    execute_one(job, store, engine_context(), lambda done, of: False)
    with pytest.raises(Stopped, match="step 23"):
        execute_one(job, other, engine_context(), lambda done, of: done == 23)
    assert other.path(job.key) is None
    torch.manual_seed(99)  # whatever happened in between
    assert execute_one(job, other, engine_context(), lambda done, of: False) is None
    one, two = StoredOutcome(store, job.key), StoredOutcome(other, job.key)
    assert bits(one.tensors().values) == bits(two.tensors().values)
    assert one.metrics == two.metrics
    assert bits(one.state(10)[1]) == bits(two.state(10)[1])
    assert two.record["timing"]["steps"] == 60 - 23


class Dropping(nn.Module):
    """A network that draws from torch's stream and keeps buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Workbench:
    """A workshop whose network is always what `build` gives."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._real, self._build = engine_context(), build
        self.device = "cpu"
        self.dataset_of, self.component = self._real.dataset_of, self._real.component
        self.last_points = self._real.last_points

    def network(self, spec: Any, feed: Any, objective: Any = None) -> nn.Module:
        return self._build()

    def network_to_measure(self, job: Any) -> nn.Module:
        return self._build()


def dropping_job() -> Train:
    values = Dropping().state_dict()
    names = [name for name, value in values.items() if name.endswith("weight") and value.dim() == 2]
    job = replace(
        dense_job(cell(40)), values=values, mask={name: values[name] > 0 for name in names}
    )
    return replace(
        job, values={n: v * job.mask[n] if n in job.mask else v for n, v in values.items()}
    )


def test_dropout_and_batch_norm_resume_bit_identically(tmp_path: Path) -> None:
    job, bench = dropping_job(), Workbench(Dropping)
    before = copy.deepcopy(dict(job.values))
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    execute_one(job, store, bench, lambda done, of: False)  # type: ignore[arg-type]
    with pytest.raises(Stopped):
        execute_one(job, other, bench, lambda done, of: done == 17)  # type: ignore[arg-type]
    execute_one(job, other, bench, lambda done, of: False)  # type: ignore[arg-type]
    after = StoredOutcome(store, job.key).tensors().values
    assert bits(after) == bits(StoredOutcome(other, job.key).tensors().values)
    assert after["body.2.num_batches_tracked"] == 40
    assert not torch.equal(after["body.2.running_mean"], before["body.2.running_mean"])
    assert bits(job.values) == bits(before)  # what was handed in is not written to


def half_frozen() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    network[1].requires_grad_(False)
    return network


def tied() -> nn.Module:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 3)
    )
    network[3].weight = network[1].weight
    return network


@pytest.mark.parametrize("build", [half_frozen, tied])
def test_parameters_that_are_not_trained_or_shared_are_as_in_a_plain_loop(build: Any) -> None:
    network = build()
    values = {name: value.clone() for name, value in network.state_dict().items()}
    if build is tied:
        values["3.weight"] = torch.randn(
            16, 16
        )  # a draw of its own, for a name that is no parameter's
    optimizer = {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    mask = {"1.weight": torch.ones_like(values["1.weight"], dtype=torch.bool)}
    job = replace(dense_job(cell(20, optimizer=optimizer)), values=values, mask=mask)
    ours = run_training(TrainingGroup([job], Workbench(build)))  # type: ignore[arg-type]

    splits = load_synthetic()
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loop = torch.optim.SGD(trainable, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True)
    order = torch.randperm(330, generator=stream(0, "order", 0))
    for step in range(20):
        rows = order[step * 16 : (step + 1) * 16]
        loop.zero_grad()
        cross_entropy(network(splits.train.inputs[rows]), splits.train.labels[rows]).backward()
        loop.step()
    assert bits(ours.member.state().values) == bits(dict(network.named_parameters()))
    assert ours.metrics().test_loss == pytest.approx(
        cross_entropy(network(splits.test.inputs), splits.test.labels).item(), rel=1e-5
    )
    slopes = gradient_job(replace(job, values=values, mask=mask))
    assert run_probe(slopes, Workbench(build)).keys() == mask.keys()  # type: ignore[arg-type]


def test_a_network_without_anything_to_train_is_refused() -> None:
    job = dense_job(cell(5))
    network = (
        make("model", {"use": "mlp", "hidden": [8, 6]}).build((1, 4, 4), 3).requires_grad_(False)
    )
    with pytest.raises(
        ContractError, match="every parameter of the network has requires_grad=False"
    ):
        TrainingGroup([job], Workbench(lambda: network))  # type: ignore[arg-type]


class Family(ModelFamily):
    """Draws what no values hold: a buffer that is not kept, a constant of the module, one of the component."""

    use = "drawn"

    _shift: torch.Tensor = PrivateAttr(default_factory=lambda: torch.rand(3))

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        network = tied()
        network.constant = torch.rand(3)
        network.register_buffer("draw", torch.rand(3), persistent=False)
        network.register_buffer("shift", self._shift, persistent=False)
        return network


def test_networks_of_one_spec_agree_in_what_their_values_do_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, job = engine_context(), dense_job(cell(5))
    feed = bench.dataset(job.data)
    monkeypatch.setattr(EngineContext, "component", lambda self, spec: Family())
    before = torch.get_rng_state()
    one = bench.network(job.model, feed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    two = bench.network(job.model, feed)
    other = bench.network(replace(job.model, options={"hidden": [9]}), feed)
    for name in ("constant", "draw", "shift"):
        assert torch.equal(getattr(one, name), getattr(two, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))


def test_a_shared_weight_is_prunable_once() -> None:
    assert Family().prunable(tied()) == ["1.weight", "4.weight"]


def test_an_unreadable_checkpoint_is_told_and_not_hidden(tmp_path: Path) -> None:
    job, store = dense_job(cell(30)), Store(tmp_path)
    with pytest.raises(Stopped):
        execute_one(job, store, engine_context(), lambda done, of: done == 12)
    (saved,) = store.scratch(job.key).glob("checkpoint-*")
    (saved / "tensors.safetensors").write_bytes(b"not what it was")
    warning = execute_one(job, store, engine_context(), lambda done, of: False)
    assert warning is not None
    assert "cannot be used (tensors.safetensors has" in warning
    assert "starts again" in warning
    assert store.path(job.key) is not None


def flip(file: Path, place: int = -1) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def leave_checkpoints(job: Train, store: Store, *steps: int) -> list[Path]:
    """Train a job up to each of some steps and stop there; the checkpoints that are left, the oldest first."""
    for step in steps:
        with pytest.raises(Stopped):
            execute_one(job, store, engine_context(), lambda done, of, step=step: done == step)
    return sorted(store.scratch(job.key).iterdir(), key=lambda path: int(path.name.split("-")[1]))


def rewrite_state(folder: Path, change: Callable[[dict[str, Any]], object], key: str) -> None:
    """Change what a checkpoint's state.json says, and seal it as its writer would have."""
    state = json.loads((folder / "state.json").read_text())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "object.json").unlink()
    seal(folder, key, "checkpoint")


def test_a_flipped_bit_in_a_checkpoint_is_never_trained_on(tmp_path: Path) -> None:
    job = dense_job(cell(40, optimizer={"use": "adam", "lr": 0.01}))
    whole = Store(tmp_path / "whole")
    execute_one(job, whole, engine_context(), lambda done, of: False)
    expected = StoredOutcome(whole, job.key)
    for number, (file, place) in enumerate(
        [
            ("tensors.safetensors", -1),
            ("tensors.safetensors", -200),
            ("state.json", 12),
            ("object.json", 30),
        ]
    ):
        store = Store(tmp_path / str(number))
        _, newest = leave_checkpoints(job, store, 12, 23)
        flip(newest / file, place)
        warning = execute_one(job, store, engine_context(), lambda done, of: False)
        assert warning is not None
        assert "checkpoint-23 cannot be used" in warning
        assert warning.endswith("the training goes on from step 12")
        outcome = StoredOutcome(store, job.key)
        assert bits(outcome.tensors().values) == bits(expected.tensors().values)
        assert outcome.metrics == expected.metrics
        assert outcome.record["timing"]["steps"] == 40 - 12
        assert not store.scratch(job.key).exists()


def test_two_damaged_checkpoints_are_both_told_and_the_training_starts_again(
    tmp_path: Path,
) -> None:
    job, store = dense_job(cell(40)), Store(tmp_path)
    for folder in leave_checkpoints(job, store, 12, 23):
        flip(folder / "tensors.safetensors")
    warning = execute_one(job, store, engine_context(), lambda done, of: False)
    assert warning is not None
    assert warning.count("cannot be used") == 2
    assert warning.endswith("starts again from its beginning")
    assert StoredOutcome(store, job.key).record["timing"]["steps"] == 40


@pytest.mark.parametrize("kernel_name", ["reference", "lockstep"])
@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("curve"),
        lambda state: state.update(curve=3),
        lambda state: state.update(counted={}),
    ],
    ids=["key missing", "list wrong", "number wrong"],
)
def test_a_checkpoint_that_cannot_be_restored_does_not_block_the_study(
    tmp_path: Path, change: Any, kernel_name: str
) -> None:
    job = replace(dense_job(cell(40, evaluate_every=10)), kernel=kernel(kernel_name))
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "store")
    execute_one(job, whole, engine_context(), lambda done, of: False)
    _, newest = leave_checkpoints(job, store, 12, 23)
    rewrite_state(newest, change, job.key)
    warning = execute_one(job, store, engine_context(), lambda done, of: False)
    assert warning is not None
    assert "Error" in warning
    assert "goes on from step 12" in warning
    assert bits(StoredOutcome(store, job.key).tensors().values) == bits(
        StoredOutcome(whole, job.key).tensors().values
    )
    assert StoredOutcome(store, job.key).metrics == StoredOutcome(whole, job.key).metrics


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("no room"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: no room"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_checkpoint_that_memory_was_too_full_for_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job, store = dense_job(cell(40)), Store(tmp_path)
    leave_checkpoints(job, store, 12)

    def fails(training: Training, *checkpoint: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Training, "restore", fails)
        with pytest.raises(Exception, match=r"no room|memory"):
            execute_one(job, store, engine_context(), lambda done, of: False)
    assert execute_one(job, store, engine_context(), lambda done, of: False) is None
    assert StoredOutcome(store, job.key).record["timing"]["steps"] == 40 - 12


def test_the_checkpoint_of_another_job_is_not_gone_on_from(tmp_path: Path) -> None:
    one, two = (
        dense_job(cell(40)),
        dense_job(cell(40, optimizer={"use": "sgd", "lr": 0.2, "momentum": 0.9})),
    )
    store = Store(tmp_path)
    (own,) = leave_checkpoints(one, store, 12)
    (foreign,) = leave_checkpoints(two, store, 12)
    shutil.rmtree(own)
    foreign.rename(own)
    warning = execute_one(one, store, engine_context(), lambda done, of: False)
    assert warning is not None
    assert f"was written as {two.key}" in warning
    assert "starts again" in warning


def test_a_training_that_no_checkpoint_was_due_for_makes_no_scratch_and_flushes_its_object_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store, flushed = dense_job(cell(30)), Store(tmp_path), []
    bench, flush, made = engine_context(), os.fsync, set[str]()

    def tick(done: int, of: int) -> bool:
        made.update(path.name for path in tmp_path.iterdir())
        return False

    def watched(number: int) -> None:
        flushed.append(number)
        flush(number)

    execute_one(replace(job, steps=1), store, bench, tick)  # makes the store
    monkeypatch.setattr(os, "fsync", watched)
    execute_one(job, store, bench, tick)
    assert "scratch" not in made
    assert len(flushed) == 3  # what came out, its tensors, and their index
    assert not (tmp_path / "scratch").exists()
    execute_one(replace(job, steps=29), store, bench, tick, checkpoint_seconds=0.0)
    assert "scratch" in made
    assert not list((tmp_path / "scratch").iterdir())


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "ab12", seconds=0)
    assert checkpoints.due
    for step in (1, 2, 3, 3, 10):
        (tmp_path / "checkpoint-7.part").mkdir()  # what a killed process leaves
        checkpoints.save({"a": torch.tensor([float(step)])}, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-3"]
    newest = checkpoints.load()
    assert newest is not None
    assert newest[0]["a"].item() == newest[1]["step"] == 10
    (tmp_path / "checkpoint-foreign").mkdir()
    flip(tmp_path / "checkpoint-10" / "tensors.safetensors")
    older = checkpoints.load()
    assert older is not None
    assert older[0]["a"].item() == older[1]["step"] == 3
    assert len(checkpoints.warnings) == 1


def test_a_diverging_training_is_an_outcome_with_the_step(tmp_path: Path) -> None:
    job, store = dense_job(cell(30, optimizer={"use": "sgd", "lr": 1e30})), Store(tmp_path)
    execute_one(job, store, engine_context(), lambda done, of: False)
    outcome = StoredOutcome(store, job.key)
    assert outcome.diverged_at == 5  # the first evaluation after the start
    with pytest.raises(TrainingDiverged, match="step 5"):
        _ = outcome.metrics


def test_a_state_asked_for_later_is_made_without_repeating_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain = dense_job(cell(40))
    execute_one(plain, store, engine_context(), lambda done, of: False)
    seen: list[int] = []
    wanting = replace(plain, snapshots=frozenset({7}))
    assert wanting.key == plain.key
    execute_one(wanting, store, engine_context(), lambda done, of: bool(seen.append(done)))
    assert max(seen) == 7
    assert store.path(state_key(plain.key, 7)) is not None
    values = StoredOutcome(store, plain.key).state(7)[0].values
    assert bits(values) == bits(trained(replace(plain, steps=7)).member.state().values)


def test_a_saved_optimizer_state_continues_the_dense_run() -> None:
    """Rewinding to k with the optimizer's state and no cut is the rest of the dense run, bit for bit."""
    job = dense_job(cell(40, optimizer={"use": "adam", "lr": 0.01}))
    first = trained(replace(job, steps=15))
    values = {name: value.clone() for name, value in first.member.state().values.items()}
    rest = replace(
        job, start=15, steps=25, values=values, optimizer_state=first.member.optimizer_state()
    )
    assert bits(trained(rest).member.state().values) == bits(trained(job).member.state().values)
    fresh = replace(rest, optimizer_state=None)
    assert bits(trained(fresh).member.state().values) != bits(trained(job).member.state().values)


def test_no_steps_only_measure() -> None:
    job = replace(dense_job(cell(40)), steps=0)
    ours = trained(job)
    assert bits(ours.member.state().values) == bits(job.values)
    assert ours.metrics().curve.step == (0,)


def test_the_gradient_is_that_of_the_mean_loss_over_the_training_set() -> None:
    job = gradient_job(dense_job(cell(10)))
    ours = run_probe(job, engine_context())
    model = make("model", {"use": "mlp", "hidden": [8, 6]}).build((1, 4, 4), 3)
    model.load_state_dict(dict(job.values))
    splits = load_synthetic()
    cross_entropy(model(splits.train.inputs), splits.train.labels).backward()
    for name, parameter in model.named_parameters():
        if name in ours:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert set(ours) == {"fc1.weight", "fc2.weight", "fc3.weight"}


def test_a_job_survives_the_trip_to_another_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = sparse(dense_job(cell(20, rewind={"use": "to_step", "step": "5it"})))
    for state in (None, {}, {"0.momentum_buffer": torch.ones(3)}):
        sent = replace(job, optimizer_state=state)
        back = unspool(spool(sent, store), store)
        assert isinstance(back, Train)
        assert (back.key, back.snapshots, back.origin) == (sent.key, sent.snapshots, sent.origin)
        assert (back.optimizer_state is None) == (state is None)


@pytest.mark.parametrize("position", [5, 100, -1])
def test_a_damaged_spooled_job_is_refused(tmp_path: Path, position: int) -> None:
    store = Store(tmp_path)
    job = dense_job(cell(20, rewind={"use": "to_step", "step": "5it"}))
    job = replace(job, optimizer_state={"0.momentum_buffer": torch.ones(3)})
    name = spool(job, store)
    flip(store.spooled(name), position)
    with pytest.raises(
        DamagedJob, match=f"{name}.*damaged.*was not trained from.*run the same command again"
    ):
        unspool(name, store)


def test_a_spooled_job_whose_file_is_gone_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = spool(dense_job(cell(20)), store)
    store.drop_spooled(name)
    assert not list(tmp_path.glob("spool/*"))
    with pytest.raises(DamagedJob, match="there is no such file"):
        unspool(name, store)


def test_swapped_spooled_jobs_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [spool(dense_job(cell(steps)), store) for steps in (20, 30)]
    one, two = (store.spooled(name) for name in names)
    one.rename(tmp_path / "aside")
    two.rename(one)
    (tmp_path / "aside").rename(two)
    for name in names:
        with pytest.raises(DamagedJob, match="not what was written under this name"):
            unspool(name, store)


def test_a_spooled_job_with_another_key_than_its_content_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = dense_job(cell(20))
    name = spool(replace(job, known_key="0" * 64), store)
    with pytest.raises(DamagedJob, match="not those of the job that was spooled"):
        unspool(name, store)


def test_objects_say_what_they_were_computed_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = sparse(dense_job(cell(20, rewind={"use": "to_step", "step": "5it"})))
    execute_one(job, store, engine_context(), lambda done, of: False)
    for key, kind in ((job.key, "training"), (state_key(job.key, 5), "state")):
        folder = store.path(key, kind)
        assert folder is not None
        description = json.loads((folder / "object.json").read_text())
        assert (description["key"], description["kind"]) == (key, kind)
        assert digest(description["source"]) == key
    assert (
        store.path(job.key, "probe") is None
    )  # and it was set aside, for it is not what was asked for
    assert store.damaged == [job.key]


def test_a_training_leaves_no_lock_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = dense_job(cell(20))
    with pytest.raises(Stopped):
        execute_one(job, store, engine_context(), lambda done, of: done == 8)
    assert len(list(tmp_path.glob("locks/*"))) == 1  # its work is not done
    execute_one(job, store, engine_context(), lambda done, of: False)
    assert not list(tmp_path.glob("locks/*"))


def test_a_component_of_another_version_is_not_used_in_its_place() -> None:
    job = dense_job(cell(5))
    stale = replace(job, schedule=replace(job.schedule, provider="lotteryfw==0.0.0"))
    with pytest.raises(LotteryError, match=r"the job needs lotteryfw==0\.0\.0"):
        trained(stale)


def test_each_epoch_visits_examples_once_in_an_order_of_its_own() -> None:
    feed = engine_context().dataset(dense_job(cell(5)).data)
    inputs = load_synthetic().train.inputs
    epochs = []
    for epoch in (0, 1):
        batches = [feed.batch(epoch * 20 + place, 16, 20, seed=3)[0] for place in range(20)]
        rows = torch.cat(batches).flatten(1)
        places = [int((inputs.flatten(1) == row).all(1).nonzero()) for row in rows]
        assert len(set(places)) == 320
        epochs.append(places)
    assert epochs[0] != epochs[1]
