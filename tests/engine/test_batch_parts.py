"""Batches in parts, whose gradients are added up, and activations that are computed twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recorder import Again
from support.runs import go, recipe
from support.small import cell, dense_job, engine_context, kernel, lab, make
from support.trainings import CONV, FROZEN, IMAGES, OPTIMIZERS, masked_job
from torch import Tensor, nn
from torch.func import functional_call

from lotteryfw.api.errors import RecipeError, UsageError
from lotteryfw.engine import KernelDispatcher
from lotteryfw.engine.activation_checkpointing import checkpoint_activations
from lotteryfw.engine.kernels import captured
from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.kernel import Kernel
from lotteryfw.engine.kernels.mask_training import MaskTraining
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.runner import StudyContext
from lotteryfw.search.jobs import Train

torch.set_num_threads(1)
STEPS = 12
ADAM = {"use": "adam", "lr": 3e-3, "eps": 1e-3}
"""Without a large eps, Adam makes whole steps of gradients that are nothing but rounding."""
RESNET = {"use": "resnet20", "width": 0.1}


def updated(job: Train, kernel_class: Any = Reference) -> tuple[Kernel, list[float]]:
    """The kernel of a job after its updates, and their losses."""
    trained = kernel_class(job, engine_context())
    losses = [float(trained.update(step, 1.0)) for step in range(STEPS)]
    return trained, losses


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], rtol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=rtol)


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# Gradient accumulation


@pytest.mark.parametrize("parts", [3, 16])
@pytest.mark.parametrize("optimizer", [OPTIMIZERS["momentum"], ADAM])
def test_a_batch_in_parts_is_the_whole_batch_but_for_rounding(
    parts: int, optimizer: dict[str, Any]
) -> None:
    job = masked_job(STEPS, optimizer=optimizer, augment=(make("augmentation", "flip"),))
    whole, losses = updated(job)
    divided, divided_losses = updated(replace(job, accumulate=parts))
    assert divided_losses == pytest.approx(losses, rel=1e-5)
    assert divided_losses != losses
    values = divided.members[0].state().values
    assert_close(values, whole.members[0].state().values, 1e-5)
    for name, mask in job.mask.items():
        assert torch.equal(values[name][~mask], torch.full_like(values[name][~mask], FROZEN))


def test_a_penalty_counts_once_a_batch() -> None:
    job = masked_job(STEPS, objective={"use": "l1", "inner": "classification", "strength": 0.01})
    whole, _ = updated(job)
    divided, _ = updated(replace(job, accumulate=4))
    assert_close(divided.members[0].state().values, whole.members[0].state().values, 1e-5)


def learning_job() -> Train:
    """A training that learns a mask."""
    parametrization = make("parametrization", "top_k")
    settings = {"data": IMAGES, "model": CONV, "optimizer": {"use": "sgd", "lr": 0.1}}
    desk = lab(cell(STEPS, parametrization=parametrization, mask1="constant", **settings))
    return replace(desk.job(desk.learn_mask(0.5)), kernel=kernel("mask_training"))


def test_the_scores_of_a_learned_mask_take_batches_in_parts() -> None:
    job = learning_job()
    whole, _ = updated(job, MaskTraining)
    divided, _ = updated(replace(job, accumulate=4), MaskTraining)
    assert_close(divided.members[0].state().scores, whole.members[0].state().scores, 1e-5)


def test_the_gradients_of_a_mask_update_are_those_of_the_whole_batch() -> None:
    job = masked_job(STEPS)
    whole = Reference(job, engine_context()).network.gradients(3)
    parts = Reference(replace(job, accumulate=4), engine_context()).network.gradients(3)
    assert_close(parts, whole, 1e-6)


def test_parts_are_recorded_with_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    job = masked_job(STEPS, accumulate=4)
    plain, _ = updated(job)
    recorder = Again()
    monkeypatch.setitem(captured.RECORDERS, "cpu", recorder)
    recorded, _ = updated(job)
    assert recorder.replays == STEPS - WARM_UP
    assert_close(recorded.members[0].state().values, plain.members[0].state().values, 1e-5)


# Activation checkpointing


class Block(nn.Module):
    """A residual block with everything that a second forward pass may spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        change: Tensor = self.drop(torch.relu(self.norm(self.conv(images))))
        return images + change


class Attributes(nn.Module):
    """A network whose blocks are attributes and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.first = Block()
        self.others = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(self.stem(images))
        for block in self.others:
            hidden = block(hidden)
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def flat() -> nn.Module:
    """A network of layers in a row, as VGG is."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Sequential(OrderedDict(block=Block(), norm=nn.BatchNorm2d(4), relu=nn.ReLU())),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )


@pytest.mark.parametrize("build", [flat, Attributes])
def test_checkpointed_blocks_give_the_same_bits_as_kept_ones(build: Any) -> None:
    results = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        module = build()
        # The weights in training are not the module's own, as in every kernel.
        parameters = {}
        for name, value in module.named_parameters():
            parameters[name] = torch.randn_like(value).requires_grad_()
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        names = list(module.state_dict())
        if is_checkpointed:
            checkpoint_activations(module)
        assert list(module.state_dict()) == names
        module.train()
        images = torch.randn(6, 3, 8, 8)
        outputs = functional_call(module, {**parameters, **buffers}, (images,))
        outputs.square().mean().backward()
        gradients = [value.grad for value in parameters.values()]
        passes = [part.passes for part in module.modules() if isinstance(part, Block)]
        assert set(passes) == {2 if is_checkpointed else 1}
        # Batch normalisation has moved its statistics once, and torch draws on from one state.
        assert float(next(v for n, v in buffers.items() if n.endswith("tracked"))) == 1
        results.append([outputs, *gradients, *buffers.values(), torch.get_rng_state()])
    for kept, twice in zip(*results, strict=True):
        assert torch.equal(kept, twice)


def doubled(build: Any) -> nn.Module:
    """A network with a block whose forward is not its class's."""
    network: nn.Module = build()
    for name, block in network.named_modules():
        if name in ("first", "4"):
            block.forward = lambda images: 2 * images
    return network


def repeated() -> nn.Module:
    """A network with one layer in two places."""
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.Linear(64, 3)
    )


@pytest.mark.parametrize("build", [lambda: doubled(flat), lambda: doubled(Attributes), repeated])
def test_checkpointed_networks_compute_what_they_are_made_to(build: Any) -> None:
    images = torch.randn(6, 3, 8, 8)
    outputs = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        module = build()
        if is_checkpointed:
            checkpoint_activations(module)
        outputs.append(module(images))
    assert torch.equal(*outputs)


def test_evaluations_keep_nothing_and_compute_once() -> None:
    module = Attributes()
    checkpoint_activations(module)
    module.eval()
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    assert module.first.passes == 1


def saved_numbers(module: nn.Module) -> int:
    """How many numbers a forward pass keeps for the backward pass."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # The result is in use until all is counted, so that no address is counted twice.
        outputs = module(torch.randn(4, 3, 32, 32, requires_grad=True))
    assert outputs.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("table", [RESNET, {"use": "vgg11", "width": 0.1}])
def test_less_is_kept_for_the_backward_pass(table: dict[str, Any]) -> None:
    kept, twice = (make("model", table).build((3, 32, 32), 3) for _ in range(2))
    checkpoint_activations(twice)
    assert saved_numbers(twice) < 0.5 * saved_numbers(kept)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("model", [RESNET, CONV])
def test_a_training_with_checkpointed_activations_has_the_same_bits(
    model: dict[str, Any], accumulate: int
) -> None:
    job = masked_job(STEPS, model=model, accumulate=accumulate)
    kept, losses = updated(job)
    twice, twice_losses = updated(replace(job, activation_checkpointing=True))
    assert twice_losses == losses
    one, other = kept.members[0], twice.members[0]
    assert_equal(one.state().values, other.state().values)
    assert_equal(one.optimizer_state(), other.optimizer_state())


def test_a_learned_mask_with_checkpointed_activations_has_the_same_bits() -> None:
    job = learning_job()
    kept, _ = updated(job, MaskTraining)
    twice, _ = updated(replace(job, activation_checkpointing=True), MaskTraining)
    assert_equal(kept.members[0].state().scores, twice.members[0].state().scores)


# Keys, kernels and recipes


def test_the_key_has_the_parts_and_not_how_activations_are_kept() -> None:
    job = masked_job(STEPS)
    assert "accumulate" not in job.source
    assert replace(job, accumulate=2).key != job.key
    assert replace(job, activation_checkpointing=True).key == job.key


def test_only_kernels_that_can_train_so_are_chosen() -> None:
    choose = KernelDispatcher(engine_context())
    plain = dense_job(cell())
    assert choose(plain, "auto").name != "reference"
    for change in ({"accumulate": 2}, {"activation_checkpointing": True}):
        job = replace(plain, **change)
        assert choose(job, "auto").name == "reference"
        for name in ("fused", "lockstep", "sparse", "compact"):
            with pytest.raises(UsageError, match=next(iter(change))):
                choose(job, name)


def test_a_recipe_sets_both(tmp_path: Path) -> None:
    figures = {}
    options = [(1, False), (1, True), (4, False)]
    for accumulate, twice in options:
        table = recipe(data=IMAGES, model=CONV, engine={"activation_checkpointing": twice})
        table["train"] = table["train"] | {"length": "12it", "accumulate": accumulate}
        table["search"] = {"use": "imp", "levels": 1}
        table["target"] = [{"name": "longer", "train": {"length": "14it"}}]
        done, _ = go(tmp_path / f"{accumulate}{twice}", table)
        figures[accumulate, twice] = [row.test_loss for row in done.levels]
        context = StudyContext(table, data=tmp_path, store=tmp_path / "store")
        (only,) = context.recipe.cells
        assert (only.accumulate, only.activation_checkpointing) == (accumulate, twice)
        assert only.targets[0].cell.accumulate == accumulate
        again = StudyContext(context.recipe.resolved(), data=tmp_path, store=tmp_path / "store")
        assert again.recipe.digest == context.recipe.digest
    assert figures[1, True] == figures[1, False]
    assert figures[4, False] == pytest.approx(figures[1, False], rel=1e-4)


def test_a_recipe_that_sets_neither_is_the_recipe_that_it_was(tmp_path: Path) -> None:
    context = StudyContext(recipe(), data=tmp_path, store=tmp_path / "store")
    (study,) = context.recipe.resolved()["study"]
    assert study["engine"] == {"kernel": "auto"}
    assert "accumulate" not in study["train"]


def test_more_parts_than_examples_are_a_fault(tmp_path: Path) -> None:
    table = recipe()
    table["train"] = table["train"] | {"accumulate": 17}
    with pytest.raises(RecipeError, match=r"train\.accumulate: a batch of 16 has no 17 parts"):
        go(tmp_path, table)
