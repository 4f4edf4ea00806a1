"""Trainings in bf16 and fp16, and with images in memory by channels-last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recorder import Again
from support.runs import go, recipe
from support.small import cell, dense_job, engine_context, kernel
from support.trainings import OPTIMIZERS
from torch import nn

from lotteryfw.api.errors import ContractError, RecipeError, UsageError
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine import KernelDispatcher
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.kernels import captured
from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.learned_mask import evaluate_state
from lotteryfw.runner import StudyContext
from lotteryfw.search.jobs import Train, from_plain

torch.set_num_threads(1)
STEPS = 30
IMAGES = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8], "noise": 0.5}
RESNET = {"use": "resnet20", "width": 0.1}
GENTLE = {"use": "sgd", "lr": 1e-3, "momentum": 0.9}
"""Small steps, after which rounding has not yet grown."""
LAST = {"memory_format": "channels_last"}


def conv_job(**changes: Any) -> Train:
    """A masked training of a small residual network."""
    settings = {"data": IMAGES, "model": RESNET, "optimizer": OPTIMIZERS["momentum"]} | changes
    job = dense_job(cell(STEPS, **settings))
    rng = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(mask.shape, generator=rng) < 0.5 for name, mask in job.mask.items()}
    values = {name: value * masks.get(name, 1.0) + 0.0 for name, value in job.values.items()}
    return replace(job, mask=masks, values=values, kernel=kernel("reference"))


def updated(job: Train, updates: int = STEPS) -> Reference:
    """The kernel of a job after some updates."""
    trained = Reference(job, engine_context())
    for step in range(updates):
        trained.update(step, 1.0 - 0.01 * step)
    return trained


def assert_same(ours: Reference, theirs: Reference) -> None:
    for part in (
        lambda trained: trained.network.state().values,
        lambda trained: trained.network.optimizer_state(),
    ):
        one, other = part(ours), part(theirs)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


def distance(ours: Reference, theirs: Reference) -> float:
    """The relative distance of the weights of two trainings."""
    one, other = [
        torch.cat([value.detach().flatten() for value in trained.network.parameters.values()])
        for trained in (ours, theirs)
    ]
    return float((one - other).norm() / other.norm())


# The key


def test_the_key_has_the_arithmetic_only_where_it_is_not_plain_float32() -> None:
    plain = conv_job()
    assert not {"precision", "memory_format"} & plain.source.keys()
    others = [
        conv_job(precision="bf16"),
        conv_job(precision="fp16"),
        conv_job(**LAST),
        conv_job(precision="bf16", **LAST),
    ]
    assert len({job.key for job in (plain, *others)}) == 5
    assert others[3].source["precision"] == "bf16"


def test_a_job_keeps_its_arithmetic_on_its_way_to_a_worker() -> None:
    job = conv_job(precision="bf16", **LAST)
    plain = job.plain()
    plain.pop("known_key", None)
    again = from_plain(
        plain,
        values=job.values,
        mask=job.mask,
        optimizer_state=job.optimizer_state,
        scores=job.scores,
    )
    assert again.key == job.key


# The arithmetic


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_gradients_statistics_and_losses_stay_float32(precision: str) -> None:
    trained = updated(conv_job(precision=precision), 2)
    network = trained.network
    tensors = [*network.state().values.values(), *network.optimizer_state().values()]
    for parameter in network.parameters.values():
        assert parameter.grad is not None
        tensors.append(parameter.grad)
    floats = {tensor.dtype for tensor in tensors if tensor.is_floating_point() and tensor.dim()}
    assert floats == {torch.float32}
    assert trained.update(2, 1.0).dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_reduced_precision_is_used_and_learns_about_the_same(precision: str) -> None:
    plain = updated(conv_job(optimizer=GENTLE), 10)
    reduced = updated(conv_job(precision=precision, optimizer=GENTLE), 10)
    assert 1e-6 < distance(reduced, plain) < 0.05
    # The evaluation is in the same precision: the same weights have another loss in float32.
    weights = reduced.network.state()
    job = reduced.network.job
    in_float32 = evaluate_state(
        replace(job, precision="float32"), engine_context(), weights, "validation"
    )
    reduced_loss = reduced.network.evaluate("validation")[0]
    assert reduced_loss == evaluate_state(job, engine_context(), weights, "validation")[0]
    assert reduced_loss != in_float32[0]
    assert reduced_loss == pytest.approx(in_float32[0], rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_channels_last_is_in_memory_and_changes_nothing_but_rounding(precision: str) -> None:
    plain = updated(conv_job(precision=precision, optimizer=GENTLE), 5)
    last = updated(conv_job(precision=precision, optimizer=GENTLE, **LAST), 5)
    for value in last.network.parameters.values():
        if value.dim() == 4:
            assert value.is_contiguous(memory_format=torch.channels_last)
    assert distance(last, plain) < (1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_masked_weights_stay_at_their_values(precision: str) -> None:
    job = conv_job(precision=precision, **LAST)
    frozen = {}
    for name, value in job.values.items():
        frozen[name] = torch.where(job.mask[name], value, 0.25) if name in job.mask else value
    values = updated(replace(job, values=frozen), 4).network.state().values
    for name, mask in job.mask.items():
        assert torch.equal(values[name][~mask], torch.full_like(values[name][~mask], 0.25))


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "rmsprop"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(
    precision: str, optimizer: str
) -> None:
    job = conv_job(precision=precision, optimizer=OPTIMIZERS[optimizer], **LAST)
    whole, fresh = updated(job, 5), Reference(job, engine_context())
    state, optimizer_state = whole.network.state().copied(), whole.network.optimizer_state()
    # A checkpoint comes from a file: contiguous.
    values = {name: value.contiguous() for name, value in state.values.items()}
    optimizer_state = {name: value.contiguous() for name, value in optimizer_state.items()}
    fresh.network.restore(NetworkState(values), optimizer_state)
    for step in range(5, 10):
        assert torch.equal(fresh.update(step, 0.9), whole.update(step, 0.9))
    assert_same(fresh, whole)


def test_a_saved_optimizer_state_begins_another_training_with_its_scale() -> None:
    job = conv_job(precision="fp16")
    whole = updated(job, 12)
    state, saved = whole.network.state().copied(), whole.network.optimizer_state()
    assert float(saved["scaler.scale"]) > 1
    age = float(saved["scaler.age"])
    assert age > 0
    later = Reference(replace(job, values=state.values, optimizer_state=saved), engine_context())
    assert later.network.optimizer_state().keys() == saved.keys()
    assert float(later.network.optimizer_state()["scaler.age"]) == age
    # In float32 the scale has no use.
    plain = Reference(
        replace(job, values=state.values, optimizer_state=saved, precision="float32"),
        engine_context(),
    )
    assert "scaler.scale" not in plain.network.optimizer_state()


def test_an_update_whose_gradients_overflow_is_left_out() -> None:
    trained = Reference(conv_job(precision="fp16"), engine_context())
    saved = trained.network.optimizer_state() | {
        "scaler.scale": torch.tensor(1e30, dtype=torch.float64)
    }
    trained.network.restore(trained.network.state().copied(), saved)
    before = {name: value.clone() for name, value in trained.network.parameters.items()}
    assert torch.isfinite(trained.update(0, 1.0))
    for name, value in trained.network.parameters.items():
        assert torch.equal(value, before[name]), name
    assert float(trained.network.optimizer_state()["scaler.scale"]) == pytest.approx(5e29)


# Recorded updates


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_recorded_updates_are_the_plain_ones(
    precision: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = conv_job(precision=precision, optimizer=OPTIMIZERS[optimizer], **LAST)
    plain = updated(job, 10)
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    recorded = updated(job, 10)
    assert (recorder.recordings, recorder.replays) == (1, 10 - WARM_UP)
    assert distance(recorded, plain) < 1e-5


def test_autocast_keeps_no_casts_from_one_recorded_update_to_the_next() -> None:
    with Arithmetic("bf16").autocast("cpu"):
        assert not torch.is_autocast_cache_enabled()


# Models, kernels and recipes


class Views(nn.Module):
    """A network whose forward takes a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.conv(images)
        return outputs.view(len(images), -1)


def test_a_network_that_takes_a_view_is_told_what_to_change() -> None:
    module, images = Views(), torch.rand(2, 3, 8, 8)
    tensors = dict(module.named_parameters())
    assert Arithmetic("bf16").outputs(module, tensors, images).dtype == torch.float32
    with pytest.raises(ContractError, match=r'engine\.memory_format = "contiguous"'):
        Arithmetic("bf16", "channels_last").outputs(module, tensors, images)


def test_only_kernels_that_can_train_in_a_precision() -> None:
    choose = KernelDispatcher(engine_context())
    plain = dense_job(cell())
    assert choose(plain, "auto").name != "reference"
    for job in (replace(plain, precision="bf16"), replace(plain, **LAST)):
        assert choose(job, "auto").name == "reference"
        for name in ("fused", "lockstep", "sparse", "compact"):
            with pytest.raises(UsageError, match=r"bf16|channels_last"):
                choose(job, name)


LEARNED = {
    "search": {"use": "edge_popup", "density": 0.5},
    "parametrization": "top_k",
    "model": {"use": "conv2", "width": 0.05},
    "initialiser": "signed_constant",
}


@pytest.mark.parametrize("changes", [{}, LEARNED], ids=["weights", "scores"])
def test_a_recipe_sets_the_precision(changes: dict[str, Any], tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        table = recipe(**({"data": IMAGES, "model": RESNET} | changes))
        table["search"] = table["search"] if changes else {"use": "imp", "levels": 1}
        table["train"] |= {"length": "3it", "precision": precision, "optimizer": GENTLE}
        done, _ = go(tmp_path / precision, table)
        losses[precision] = done.levels[-1].test_loss
    assert losses["float32"] != losses["bf16"]
    assert losses["float32"] == pytest.approx(losses["bf16"], rel=0.1)


def test_the_memory_format_follows_the_precision_unless_it_is_set(tmp_path: Path) -> None:
    formats = {}
    for precision in ("float32", "bf16"):
        for engine in ({}, {"memory_format": "contiguous"}, {"memory_format": "channels_last"}):
            table = recipe(engine=engine)
            table["train"] = table["train"] | {"precision": precision}
            context = StudyContext(table, data=tmp_path, store=tmp_path / "store")
            (only,) = context.recipe.cells
            formats[precision, engine.get("memory_format")] = only.memory_format
            assert only.precision == precision
            again = StudyContext(context.recipe.resolved(), data=tmp_path, store=tmp_path / "store")
            assert again.recipe.digest == context.recipe.digest
    assert formats == {
        ("float32", None): "contiguous",
        ("float32", "contiguous"): "contiguous",
        ("float32", "channels_last"): "channels_last",
        ("bf16", None): "channels_last",
        ("bf16", "contiguous"): "contiguous",
        ("bf16", "channels_last"): "channels_last",
    }


def test_fp16_is_refused_on_the_cpu_before_any_training(tmp_path: Path) -> None:
    table = recipe()
    table["train"] = table["train"] | {"precision": "fp16"}
    with pytest.raises(UsageError, match=r'precision = "fp16" needs a CUDA device.*"bf16"'):
        go(tmp_path, table)
    assert not list((tmp_path / "store").rglob("outcome.json"))


def test_an_unknown_precision_is_a_fault_with_its_key(tmp_path: Path) -> None:
    table = recipe()
    table["train"] = table["train"] | {"precision": "bfloat16"}
    with pytest.raises(RecipeError, match=r"train\.precision"):
        go(tmp_path, table)
