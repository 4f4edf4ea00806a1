"""Masks that change during one training: what the engine does at a change, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.mask_updates import FILE
from support.recorder import Again
from support.small import cell, execute_one, reference_kernel
from support.trainings import OPTIMIZERS, run_training
from torch import Tensor
from torch.func import functional_call

from lotteryfw.api.component import Component
from lotteryfw.api.errors import ContractError, PluginError, UsageError
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.engine import EngineContext, KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.kernels import recorded_network
from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.runtime import layer_infos
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.registry import Registry
from lotteryfw.search import jobs
from lotteryfw.search.jobs import Spec, Train, from_plain
from lotteryfw.search.lab import CellLab
from lotteryfw.search.randomness import Randomness
from lotteryfw.store import Store

REGISTRY = Registry.load([FILE])
CONV = {
    "data": {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8], "noise": 0.5},
    "model": {"use": "resnet20", "width": 0.1},
}


def context() -> EngineContext:
    return EngineContext(REGISTRY, Path("unused"), "cpu")


def described(component: Component, clock: Clock) -> Spec:
    offer = REGISTRY.offer_of(component)
    return Spec(offer.kind, offer.full_name, offer.provider, component.options(clock))


def job_of(update: Any = "swap", density: float = 0.4, steps: int = 20, **changes: Any) -> Train:
    """A training with a mask update, of a sparse network mostly."""
    component = REGISTRY.create("mask_update", update)
    lab = CellLab(
        cell(steps, mask_update=component, **changes),
        described,
        Path("unused"),
        "cpu",
        reference_kernel,
    )
    job = lab.job(lab.update_mask(density))
    assert isinstance(job, Train)
    return job


def group(job: Train) -> TrainingGroup:
    return TrainingGroup([job], context())


def network_of(training: Training) -> TrainedNetwork:
    assert isinstance(training.member, TrainedNetwork)
    return training.member


def counts(masks: Any) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_equals_a_plain_loop_that_changes_its_masks(optimizer: str) -> None:
    """The loop is written out here with torch alone, but for the update's own methods."""
    job = job_of(optimizer=OPTIMIZERS[optimizer])
    training = run_training(group(job))

    engine = context()
    dataset = engine.dataset_of(job)
    module = engine.network(job.model, dataset, job.objective)
    module.load_state_dict(dict(job.values))
    parameters = dict(module.named_parameters())
    masks = {name: mask.clone() for name, mask in job.mask.items()}
    loop_optimizer = engine.component(job.optimizer).build(parameters)
    cross_entropy = torch.nn.CrossEntropyLoss()
    changes = 0
    for step in range(job.steps):
        inputs, labels = dataset.batch(step, job.batch, job.steps_per_epoch, job.order_seed)
        loop_optimizer.zero_grad()
        cross_entropy(module(inputs), labels).backward()
        loop_optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name][~mask] = 0.0
        if (step + 1) % 4 == 0 and step + 1 < job.total:
            changes += 1
            masks = changed_by_hand(job, step + 1, module, masks, loop_optimizer)

    assert changes == 4
    for name, parameter in parameters.items():
        assert torch.equal(training.member.state().values[name], parameter.detach()), name
    for name, mask in masks.items():
        assert torch.equal(training.member.state().masks[name], mask)
        assert not torch.equal(mask, job.mask[name])


def changed_by_hand(
    job: Train,
    step: int,
    module: torch.nn.Module,
    masks: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """The update `swap` as a loop over layers, with the gradient of the next batch."""
    dataset = context().dataset_of(job)
    inputs, labels = dataset.batch(step, job.batch, job.steps_per_epoch, job.order_seed)
    parameters = dict(module.named_parameters())
    loss = torch.nn.CrossEntropyLoss()(module(inputs), labels)
    gradients = dict(
        zip(masks, torch.autograd.grad(loss, [parameters[n] for n in masks]), strict=True)
    )
    rng = stream(job.mask_seed or 0, "mask update", step)
    new = {}
    for name, mask in masks.items():
        weight = parameters[name].detach()
        count = min(int(mask.sum()) // 4, int((~mask).sum()))
        slope = gradients[name].abs() + 0.01 * torch.rand(mask.shape, generator=rng)
        alive = [i for i, is_alive in enumerate(mask.flatten().tolist()) if is_alive]
        masked = [i for i in range(mask.numel()) if i not in set(alive)]
        drop = sorted(alive, key=lambda i: abs(float(weight.flatten()[i])))[:count]
        grow = sorted(masked, key=lambda i: -float(slope.flatten()[i]))[:count]
        flat = mask.clone().flatten()
        flat[drop], flat[grow] = False, True
        new[name] = flat.reshape(mask.shape)
    initialiser = context().component(job.initialiser)
    infos = {layer.name: layer for layer in layers_of(job)}
    for name, mask in new.items():
        changed = mask ^ masks[name]
        drawn = initialiser.weight(infos[name], rng)
        with torch.no_grad():
            parameters[name][mask & changed] = drawn[mask & changed]
            parameters[name][~mask] = 0.0
        for state in optimizer.state[parameters[name]].values():
            if isinstance(state, Tensor) and state.dim():
                state[changed] = 0.0
    return new


def layers_of(job: Train) -> tuple[LayerInfo, ...]:
    engine = context()
    module = engine.network(job.model, engine.dataset_of(job), job.objective)
    return layer_infos(engine.component(job.model), module)


def test_weights_that_go_are_zero_and_the_optimizer_begins_afresh_where_the_mask_changed() -> None:
    job = job_of({"use": "swap", "every": 10}, optimizer=OPTIMIZERS["adam"])
    trainings = group(job)
    network = network_of(trainings.trainings[0])
    run_training(trainings, until=9)
    before = {name: mask.clone() for name, mask in network.state().masks.items()}
    run_training(trainings, until=10)
    after = network.state()
    for name, mask in after.masks.items():
        changed = mask ^ before[name]
        assert int(changed.sum()) == 2 * (int(before[name].sum()) // 4) > 0
        assert not after.values[name][~mask].any()
        assert after.values[name][changed & mask].all()  # `regrown` draws from the initialiser
        state = network.optimizer.state[network.parameters[name]]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not state[moment][changed].any()
            assert state[moment][mask & before[name]].any()


def test_the_gradient_covers_masked_weights_and_leaves_the_training_as_it_is() -> None:
    job = job_of(optimizer=OPTIMIZERS["momentum"], **CONV)
    trainings = group(job)
    network = network_of(trainings.trainings[0])
    run_training(trainings, until=3)
    before = network.state().copied()
    gradients = network.gradients(3)
    again = network.gradients(3)
    after = network.state()
    assert any("running_mean" in name for name in before.values)
    for name, value in before.values.items():
        assert torch.equal(value, after.values[name]), name
    inputs, labels = network.batch(3)
    values = {name: value.clone() for name, value in before.values.items()}
    for name, gradient in gradients.items():
        assert torch.equal(gradient, again[name])
        assert gradient[~before.masks[name]].any()
    # A finite difference along one masked weight, in double precision.
    name = next(iter(gradients))
    index = int((~before.masks[name]).flatten().nonzero()[0])
    losses = []
    for shift in (1e-6, -1e-6):
        moved = {n: v.double() if v.is_floating_point() else v.clone() for n, v in values.items()}
        moved[name].flatten()[index] += shift
        outputs = functional_call(network.module.train(), moved, (inputs.double(),))
        losses.append(float(torch.nn.functional.cross_entropy(outputs, labels)))
    slope = (losses[0] - losses[1]) / 2e-6
    assert slope == pytest.approx(float(gradients[name].flatten()[index]), rel=1e-2, abs=1e-6)


def test_without_an_update_a_job_keeps_its_key() -> None:
    job = job_of()
    plain = replace(job, mask_update=None)
    assert "mask_update" not in jobs.key_source(plain)
    assert job.key != plain.key
    tensors = {"values": job.values, "mask": job.mask, "optimizer_state": None, "scores": {}}
    assert from_plain(job.plain(), **tensors).key == job.key


def test_every_change_is_a_point_of_the_curve_with_density_and_churn() -> None:
    training = run_training(group(job_of({"use": "swap", "every": 3}, steps=20)))
    curve = training.metrics().curve
    assert set(curve.step) == {0, 5, 10, 15, 20, 3, 6, 9, 12, 18}
    assert list(curve.step) == sorted(curve.step)
    kept = {name: int(mask.sum()) for name, mask in training.job.mask.items()}
    for name, mask in training.job.mask.items():
        size = mask.numel()
        assert set(curve.extra[f"density/{name}"]) == {kept[name] / size}
        moved = 2 * min(kept[name] // 4, size - kept[name]) / size
        expected = [moved if step % 3 == 0 and step else 0.0 for step in curve.step]
        assert list(curve.extra[f"churn/{name}"]) == expected
    assert curve.units["density"] == curve.units["churn/fc1.weight"] == "share"


def test_early_stopping_looks_at_the_last_mask_alone() -> None:
    """The largest rate makes the loss rise, so the first point would be the best."""
    job = job_of({"use": "swap", "every": 12}, optimizer={"use": "sgd", "lr": 20.0})
    training = run_training(group(job))
    losses = dict(zip(training.curve["step"], training.curve["validation_loss"], strict=True))
    assert min(losses, key=lambda step: losses[step]) < 12
    best = min((loss, step) for step, loss in losses.items() if step >= 12)
    assert training.metrics().early_stop_step == best[1]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("stop_at", [3, 4, 9])
def test_a_checkpoint_in_the_middle_goes_on_to_the_same_bits(stop_at: int, optimizer: str) -> None:
    job = job_of(optimizer=OPTIMIZERS[optimizer])
    whole = run_training(group(job))
    first = group(job)
    tensors, plain = run_training(first, until=stop_at).checkpoint()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    second = group(job)
    second.trainings[0].restore(tensors, plain)
    resumed = run_training(second)
    assert resumed.metrics() == whole.metrics()
    for name, tensor in whole.member.state().encoded().items():
        assert torch.equal(tensor, resumed.member.state().encoded()[name]), name
    for name, tensor in whole.member.optimizer_state().items():
        assert torch.equal(tensor, resumed.member.optimizer_state()[name]), name


def test_a_stopped_job_goes_on_and_its_outcome_has_the_last_mask(tmp_path: Path) -> None:
    job = replace(job_of(), snapshots=frozenset({6}))
    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    execute_one(job, whole, context(), lambda done, of: False)
    with pytest.raises(Stopped):
        execute_one(job, stopped, context(), lambda done, of: done == 7, checkpoint_seconds=0.0)
    execute_one(job, stopped, context(), lambda done, of: False)
    one, other = StoredOutcome(whole, job.key), StoredOutcome(stopped, job.key)
    assert one.metrics == other.metrics
    for name, mask in one.mask().items():
        assert torch.equal(mask, other.mask()[name])
        assert not torch.equal(mask, job.mask[name])
        assert not one.tensors().values[name][~mask].any()
        snapshot = one.state(6)[0]
        assert torch.equal(snapshot.masks[name], other.state(6)[0].masks[name])
        assert not torch.equal(snapshot.masks[name], mask)
        assert not snapshot.values[name][~snapshot.masks[name]].any()


def test_recorded_updates_change_their_masks_without_another_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = job_of(optimizer=OPTIMIZERS["adam"])
    plain = run_training(group(job))
    recorder = Again()
    monkeypatch.setattr(recorded_network, "recorder_for", lambda optimizer, device: recorder)
    recorded = run_training(group(job))
    # the updates, and the evaluations from the third on
    assert recorder.recordings == 2
    assert recorder.replays == (20 - WARM_UP) + (len(recorded.curve["step"]) - 2)
    for name, mask in plain.member.state().masks.items():
        assert torch.equal(mask, recorded.member.state().masks[name])
        theirs = recorded.member.state().values[name]
        torch.testing.assert_close(theirs, plain.member.state().values[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", ["fused", "sparse", "compact", "lockstep"])
def test_kernels_that_train_under_one_mask_say_so(kernel: str) -> None:
    choose = KernelDispatcher(context())
    job = job_of(density=0.05)
    assert choose(job, "auto").name == choose(job, "reference").name == "reference"
    with pytest.raises(UsageError, match=r"under one mask, and here the mask update '.*swap'"):
        choose(job, kernel)


BROKEN = {
    "too many": r"budgets\(\) at step 2 keeps 10000 of 128 weights in fc1.weight",
    "unknown layer": r"budgets\(\) at step 2 names no layer of the network: fc9.weight",
    "twice": r"budgets\(\) at step 2 has fc1.weight in two groups",
    "no group": r"budgets\(\) at step 2 gave a int, not a Group",
    "budget": r"update\(\) at step 2 keeps 64 weights in fc1.weight; its budgets\(\) says 51",
    "unknown mask": r"update\(\) at step 2 names no layer of the network: fc9.weight",
    "float": r"returned torch.float32 of shape \[8, 16\] for layer fc1.weight; a bool tensor of",
    "shape": r"returned torch.bool of shape \[7, 16\] for layer fc1.weight; a bool tensor of shape \[8",
    "list": r"update\(\) at step 2 returned list, not a dict by layer",
    "NaN": r"regrown\(\) at step 2 on layer fc1.weight returned NaN or infinite values",
    "writes": r"update\(\) changed `weights\['fc1.weight'\]` in place",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_breaks_the_contract_is_named_with_component_step_and_layer(how: str) -> None:
    job = job_of({"use": "broken_update", "how": how})
    with pytest.raises(ContractError, match=rf"mask_update '\S*broken_update' .*{BROKEN[how]}"):
        run_training(group(job))


def test_an_error_inside_is_the_components() -> None:
    with pytest.raises(
        PluginError, match=r"mask_update '\S*broken_update' .*RuntimeError: nothing here"
    ):
        run_training(group(job_of({"use": "broken_update", "how": "raises"})))


def test_two_seeds_of_one_network_and_data_order_have_origins_of_their_own() -> None:
    """An update draws under the cell's seed: equal origins would answer one by the other's key."""
    fixed = Randomness(init=0, order=0, augment=0, ties=0, scores=0)
    first, second = (job_of(density=1.0, seed=seed, randomness=fixed) for seed in (0, 1))
    assert first.order_seed == second.order_seed
    assert torch.equal(first.values["fc1.weight"], second.values["fc1.weight"])
    assert first.mask_seed != second.mask_seed
    assert first.key != second.key
    assert first.origin != second.origin
