"""What a training holds on its device: counted, refused where it cannot fit, and halved where it did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import files, go, recipe
from support.small import cell, dense_job, describe, engine_context, make
from support.trainings import of_network
from torch import Tensor, nn

from lotteryfw import ModelFamily
from lotteryfw.api.errors import UsageError
from lotteryfw.api.steps import Clock
from lotteryfw.engine import group_key, memory
from lotteryfw.engine.kernels.lockstep import Group
from lotteryfw.engine.memory import TrainingMemory, training_memory
from lotteryfw.runner import StudyContext

IMAGES = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8]}
SMALL_OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. If reserved"


def measured(**changes: Any) -> TrainingMemory:
    return training_memory(dense_job(cell(10, **changes)), engine_context())


def test_the_bytes_of_a_small_chain_are_those_counted_by_hand() -> None:
    """16 inputs, 8 and 6 hidden units, 3 classes: 211 parameters, 194 of them prunable."""
    small = measured()
    assert small.weights == 4 * 211 + 194  # the masks have a byte for each weight
    assert small.gradients == small.optimizer == 4 * 211  # SGD with momentum
    # Of 16 examples: inputs, two hidden layers and log-probabilities in float32, labels in int64,
    # and the number of examples that the mean divides by.
    assert small.activations == 16 * (4 * (16 + 8 + 6 + 3) + 8) + 4
    assert (
        small.data == 330 * 16 + small.data - 330 * 16
    )  # a byte a value, with validation and test
    assert small.of_training == small.weights + small.gradients + small.optimizer + 2244


@pytest.mark.parametrize(
    ("optimizer", "states"),
    [({"use": "sgd", "lr": 0.1}, 0), ({"use": "adam"}, 2), ({"use": "adamw"}, 2), ({"use": "rmsprop"}, 1)],
)  # fmt: skip
def test_an_optimizer_holds_what_its_first_step_makes(
    optimizer: Mapping[str, Any], states: int
) -> None:
    table = {"lr": 1e-3, **optimizer}
    counts = 6 * 4 if states else 0  # a count of steps for each tensor
    assert measured(optimizer=table).optimizer == 4 * 211 * states + counts


@pytest.mark.parametrize("has_scores", [False, True])
def test_frozen_parameters_have_no_gradient(
    has_scores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 200), nn.ReLU(), nn.Linear(200, 200), nn.Linear(200, 3)
    )
    network[1].requires_grad_(False)
    network[3].requires_grad_(False)
    job = of_network(dense_job(cell(10)), network, monkeypatch)
    trained = 200 * 3 + 3
    if has_scores:
        # Masks of frozen weights are learned all the same.
        scores = {name: job.values[name] for name in job.mask}
        top_k = describe(make("parametrization", "top_k"), Clock(10, 20))
        job = replace(job, scores=scores, parametrization=top_k)
        trained = sum(value.numel() for value in scores.values())
    counted = training_memory(job, engine_context())
    assert counted.gradients == counted.optimizer == 4 * trained
    # Of 16 examples: inputs, the inputs of every layer but the first whose weights have a gradient,
    # log-probabilities and labels.
    hidden = 400 if has_scores else 200
    assert counted.activations == 16 * (4 * (16 + hidden + 3) + 8) + 4


def test_activations_grow_with_the_batch_and_shrink_with_the_precision() -> None:
    conv: dict[str, Any] = {"data": IMAGES, "model": {"use": "resnet20", "width": 0.1}}
    whole, half = measured(batch=32, **conv).activations, measured(batch=16, **conv).activations
    assert whole is not None
    assert half is not None
    assert 1.9 < whole / half <= 2.0
    reduced = measured(batch=32, precision="bf16", **conv).activations
    assert reduced is not None
    assert 0.4 < reduced / whole < 0.7


def test_parts_and_checkpoints_need_less() -> None:
    conv: dict[str, Any] = {"data": IMAGES, "model": {"use": "resnet20", "width": 0.1}, "batch": 32}
    whole, parts = measured(**conv).activations, measured(accumulate=4, **conv).activations
    twice = measured(activation_checkpointing=True, **conv).activations
    assert whole is not None
    assert twice is not None
    assert parts == measured(**{**conv, "batch": 8}).activations
    assert twice < 0.5 * whole


def test_a_network_that_reads_values_has_no_count_of_activations() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)) * (2.0 if x.sum().item() > 0 else 1.0)

    class Family(ModelFamily):
        use = "reading"

        def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
            return Reading()

    class Context:
        device, data_folder = "cpu", Path("unused")
        component = staticmethod(engine_context().component)

        @staticmethod
        def network(spec: Any, info: Any, objective: Any) -> nn.Module:
            return Reading()

    values = dict(Reading().state_dict())
    job = dense_job(cell(10))
    job = replace(job, values=values, mask={"fc.weight": torch.ones(3, 16, dtype=torch.bool)})
    unknown = training_memory(job, Context())  # type: ignore[arg-type]
    assert unknown.activations is None
    assert unknown.gradients == 4 * 51
    assert unknown.largest_batch(10**9) == 0


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    counted = TrainingMemory(100, 100, 200, 5_000, batch=50, data=0)
    assert counted.largest_batch(400 + 100 * 12) == 12
    assert counted.largest_batch(399) == 0


# The refusal


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory is too small for a batch of 16, and large enough for one of 13."""
    monkeypatch.setattr(memory, "device_bytes", lambda device: 12_000)


@pytest.mark.usefixtures("small_device")
def test_a_training_that_cannot_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    table = recipe()
    context = StudyContext(table, data=tmp_path, store=tmp_path / "store")
    with pytest.raises(UsageError) as raised:
        context.validate_memory("cuda")
    text = str(raised.value)
    assert "cell 'small/seed=0': a training needs at least 12" in text
    assert "activations of a batch of 16 2.2 kB" in text
    assert "and the device has 12.0 kB; set train.batch to at most 13" in text
    assert 'train.precision = "bf16"' in text
    with pytest.raises(UsageError, match="which 2 processes share; run fewer processes on it"):
        context.validate_memory("cuda", processes=2)
    fitting = {**table, "train": {**table["train"], "batch": 13}}
    StudyContext(fitting, data=tmp_path, store=tmp_path / "store").validate_memory("cuda")


@pytest.mark.usefixtures("small_device")
def test_a_run_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"set train\.batch to at most"):
        go(tmp_path)
    assert not list((tmp_path / "store").rglob("outcome.json"))


def test_the_memory_of_learned_masks_has_their_scores(tmp_path: Path) -> None:
    learned = recipe(
        search={"use": "edge_popup", "density": 0.5}, parametrization="top_k",
        initialiser="signed_constant", model={"use": "mlp", "hidden": [8, 6], "bias": False},
    )  # fmt: skip
    context = StudyContext(learned, data=tmp_path, store=tmp_path / "store")
    (table,) = context.networks()
    assert "gradients 0.8 kB, optimizer 0.8 kB" in table.memory  # of 194 scores
    assert "weights 1.7 kB" in table.memory  # weights, scores and masks


def test_nothing_is_refused_where_the_memory_is_not_known() -> None:
    assert memory.device_bytes("cpu") is None


def test_the_smallest_gpu_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [80, 24]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))

    def properties(index: int) -> Any:
        return type("Properties", (), {"total_memory": sizes[index]})

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert memory.device_bytes("cuda") == 24


# Out of memory


def many(count: int = 6) -> dict[str, Any]:
    return recipe(
        seeds=list(range(count)), search={"use": "imp", "levels": 1}, engine={"kernel": "lockstep"}
    )


class Small:
    """Lets groups of up to `most` run, and has no memory for larger ones from the step `at` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, at: int = 0):
        self.sizes: list[int] = []
        update, sizes = Group.update, self.sizes

        def limited(group: Group, step: int, factor: float) -> Tensor:
            if step >= at and group._count > most:
                sizes.append(-group._count)
                raise torch.OutOfMemoryError(SMALL_OUT)
            sizes.append(group._count)
            return update(group, step, factor)

        monkeypatch.setattr(Group, "update", limited)


@pytest.mark.parametrize("at", [0, 25])
def test_a_group_that_does_not_fit_is_halved_and_goes_on(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = go(tmp_path / "plain", many())
    small = Small(monkeypatch, most=2, at=at)
    done, watch = go(tmp_path / "small", many(), checkpoint_seconds=0.0)
    assert set(done.statuses.values()) == {"done"}
    assert files(done.path) == files(plain.path)
    assert [size for size in small.sizes if size < 0] == [-6, -3]
    assert {size for size in small.sizes if size > 0} >= {1} or at
    (text,) = watch.warnings
    assert "6 trainings in step did not fit into the device's memory" in text
    assert "Tried to allocate 2.00 GiB), and go on 3 at a time" in text
    assert "and go on 1 at a time" in text


def test_a_single_training_that_does_not_fit_fails_its_cell_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Small(monkeypatch, most=0)
    done, watch = go(tmp_path, many(2))
    assert set(done.statuses.values()) == {"failed"}
    text = str(watch.of("CellFinished")).replace("\\'", "'")
    assert "a training of 'lotteryfw/mlp' does not fit into the device's memory" in text
    assert "set train.batch below 16" in text
    assert "--jobs-per-device" in text


# The size of groups


def test_groups_on_a_gpu_have_up_to_256_members_of_4_gib_together() -> None:
    def most(device: str, **changes: Any) -> int:
        from support.small import kernel

        job = replace(dense_job(cell(10, **changes)), device=device, kernel=kernel("lockstep"))
        shared = group_key(job)
        assert shared is not None
        return shared.most

    assert most("cuda") == 256
    assert most("cpu") == 16
    lenet = {"data": {**IMAGES, "shape": [1, 28, 28]}, "model": "lenet_300_100", "batch": 60}
    assert most("cuda", **lenet) == 256
    wide = {
        "data": {**IMAGES, "shape": [1, 28, 28]},
        "model": {"use": "mlp", "hidden": [3000, 3000]},
    }
    assert 1 < most("cuda", **wide) < 20
