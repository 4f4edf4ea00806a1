"""Masks learned without autograd, against autograd: same masks and figures, and when each is chosen."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small import cell, engine_context, execute_one, kernel, lab, make
from support.trainings import OPTIMIZERS, of_network, run_training
from torch import nn

from lotteryfw.api.errors import TrainingDiverged, UsageError
from lotteryfw.engine import KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train
from lotteryfw.std.parametrizations import Bernoulli
from lotteryfw.store import Store

numba_scores = pytest.importorskip(
    "lotteryfw.engine.kernels.sparse.numba_scores",
    reason="the kernel needs numba",
    exc_type=UsageError,
)
numba_draws = pytest.importorskip(
    "lotteryfw.engine.kernels.sparse.numba_draws", exc_type=UsageError
)
torch.set_num_threads(1)
SGD = {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
DIGITS: dict[str, Any] = {"data": "digits", "model": {"use": "mlp", "hidden": [40, 20]}}
LARGE: dict[str, Any] = {"data": "digits", "model": {"use": "mlp", "hidden": [800, 100]}}
HOW: dict[str, Any] = {
    "by magnitude": "top_k",
    "signed": {"use": "top_k", "rank": "signed"},
    "every third step": {"use": "top_k", "every": 3},
    "drawn": "bernoulli",
    "drawn and rescaled": {"use": "bernoulli", "rescale": "dynamic", "logit": 0.5, "samples": 3},
}


def density_of(how: str, density: float) -> float | None:
    return None if how.startswith("drawn") else density


def learning(how: Any, density: float | None, steps: int = 60, **changes: Any) -> Train:
    # No signed constants: their sums may be 0 but for rounding, where a ReLU's slope is anybody's.
    changes = {"optimizer": SGD, **DIGITS, **changes}
    desk = lab(cell(steps, parametrization=make("parametrization", how), **changes))
    job: Train = desk.job(desk.learn_mask(density))
    return job


def on(job: Train, choice: str) -> Train:
    return replace(job, kernel=KernelDispatcher(engine_context())(job, choice))


def trained(job: Train, choice: str) -> Training:
    return run_training(TrainingGroup([on(job, choice)], engine_context()))


@pytest.fixture(params=[0.9, 0.1], ids=["all inputs", "sparse inputs"])
def inputs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer reads all inputs, or those that are not 0."""
    monkeypatch.setattr(DeviceDataset, "nonzero_share", lambda self: request.param)


def agree(job: Train, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Require that both kernels end with the same scores, masks and figures."""
    fast, true = trained(job, "fused"), trained(job, "reference")
    ours, theirs = fast.member.state(), true.member.state()
    for name, scores in theirs.scores.items():
        torch.testing.assert_close(ours.scores[name], scores, rtol=rtol, atol=atol)
        assert not torch.equal(ours.scores[name], job.scores[name]), "the training moved nothing"
    for kind, tensors in theirs.extra.items():
        for name, mask in tensors.items():
            assert torch.equal(ours.extra[kind][name], mask), (kind, name)
    for name, values in true.curve.items():
        # There is no training loss before the first step.
        assert fast.curve[name][1:] == pytest.approx(values[1:], rel=10 * rtol, abs=1e-5), name
    assert fast.metrics().test_accuracy == pytest.approx(true.metrics().test_accuracy, abs=1e-9)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("density", [0.5, 0.1])
@pytest.mark.parametrize("how", HOW)
def test_scores_masks_and_figures_are_those_of_autograd(how: str, density: float) -> None:
    agree(learning(HOW[how], density_of(how, density)))


@pytest.mark.usefixtures("inputs")
def test_of_a_layer_no_edge_may_be_drawn() -> None:
    often_none = {"use": "bernoulli", "rescale": "dynamic", "logit": -5.0}
    # Edges that are alone in their layer are multiplied by its size, and so is their rounding.
    agree(learning(often_none, None, steps=30), 1e-3, 1e-4)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("left", [0.4, 0.2], ids=["more than", "fewer than the budget"])
@pytest.mark.parametrize("how", ["by magnitude", "drawn and rescaled"])
def test_edges_that_were_removed_are_never_kept(how: str, left: float) -> None:
    job = learning(HOW[how], density_of(how, 0.3))
    allowed = {}
    for number, (name, mask) in enumerate(job.mask.items()):
        rng = torch.Generator().manual_seed(number)
        allowed[name] = torch.rand(mask.shape, generator=rng) < left
    job = replace(job, mask=allowed)
    agree(job)
    ever = trained(job, "fused").member.state().extra["selected"]
    for name, mask in allowed.items():
        assert ever[name].any()
        assert not (ever[name] & ~mask).any()


@pytest.mark.usefixtures("inputs")
def test_layers_may_share_a_budget_and_a_layer_may_have_none() -> None:
    job = learning("top_k", 0.5)
    first, second, last = job.mask
    agree(replace(job, budgets=(((second, first), 300),)))
    agree(replace(job, budgets=(((first,), 100), ((last,), 60))))


@pytest.mark.usefixtures("inputs")
def test_equal_scores_are_told_apart_by_their_places() -> None:
    # In a transposed layout neighbours are of other rows; the first rows are to be kept all the same.
    job = learning("top_k", 0.5, steps=1, optimizer={"use": "sgd", "lr": 0.1})
    alike = {name: torch.full_like(scores, 0.1) for name, scores in job.scores.items()}
    agree(replace(job, scores=alike))


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nesterov"])
def test_every_optimizer_that_has_a_loop_trains_the_scores(optimizer: str) -> None:
    # Adam divides by the square roots of gradients, which are 0 but for rounding where inputs are.
    agree(learning("top_k", 0.5, steps=20, optimizer=OPTIMIZERS[optimizer]), 1e-3, 1e-4)


def test_biases_that_are_there_take_part() -> None:
    job = learning("top_k", 0.5, steps=5)
    biases = [name for name in job.values if name.endswith(".bias")]
    assert biases
    shifted = {name: job.values[name] + 0.3 for name in biases}
    agree(replace(job, values={**job.values, **shifted}))


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("how", HOW)
def test_it_resumes_bit_for_bit(how: str, tmp_path: Path) -> None:
    job = on(learning(HOW[how], density_of(how, 0.3), steps=40), "fused")
    stores = [Store(tmp_path / name) for name in "ab"]
    execute_one(job, stores[0], engine_context(), lambda done, of: False)
    with pytest.raises(Stopped):
        execute_one(job, stores[1], engine_context(), lambda done, of: done == 17)
    execute_one(job, stores[1], engine_context(), lambda done, of: False)
    bits = []
    for store in stores:
        outcome = StoredOutcome(store, job.key)
        tensors = outcome.tensors().encoded().items()
        bits.append((outcome.metrics, {name: value.numpy().tobytes() for name, value in tensors}))
    assert bits[0] == bits[1]


def test_what_one_kernel_remembers_goes_on_in_the_other() -> None:
    first = trained(learning("top_k", 0.5, steps=20), "reference")
    memory, scores = first.member.optimizer_state(), first.member.state().scores
    agree(replace(learning("top_k", 0.5, steps=20), scores=dict(scores), optimizer_state=memory))


def test_a_divergence_is_noticed() -> None:
    job = learning("top_k", 0.5, optimizer={"use": "sgd", "lr": 1e38, "momentum": 0.9})
    with pytest.raises(TrainingDiverged):
        trained(job, "fused")


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("choice", ["fused", "reference"])
@pytest.mark.parametrize("how", HOW)
def test_a_score_of_a_removed_edge_may_not_be_infinite(how: str, choice: str) -> None:
    job = learning(HOW[how], density_of(how, 0.5), steps=1)
    scores, mask = job.scores["fc1.weight"].clone(), job.mask["fc1.weight"].clone()
    scores[0, 0], mask[0, 0] = inf, False
    changed = {"scores": {**job.scores, "fc1.weight": scores}}
    job = replace(job, mask={**job.mask, "fc1.weight": mask}, **changed)
    with pytest.raises(TrainingDiverged):
        trained(job, choice)


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("how", HOW)
def test_what_is_no_edge_is_no_divergence(how: str) -> None:
    member: Any = trained(learning(HOW[how], density_of(how, 0.5), steps=3), "fused").member
    expected = member.evaluate("validation")
    # A transposed layer has entries that are no edges, and biases lie between the layers.
    edges = torch.zeros(len(member._scores), dtype=torch.bool)
    for layer in member._layers.values():
        whole = torch.ones(*layer.parameter.shape, dtype=torch.bool)
        edges[layer.parameter.span] = layer.parameter.compress(whole)
    member._scores[~edges] = inf
    assert member.evaluate("validation") == expected
    assert isfinite(expected[0])


def test_auto_takes_it_for_networks_that_repay_it() -> None:
    choose = KernelDispatcher(engine_context())
    expected = kernel("fused_masks", loops=f"numba{version('numba')}")
    large = learning("top_k", 0.5, **LARGE)
    assert choose(large, "auto") == expected
    assert choose(learning("top_k", 0.5), "auto") == kernel("mask_training")
    assert choose(large, "reference") == kernel("mask_training")


def test_where_most_inputs_are_0_the_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceDataset, "nonzero_share", lambda self: 0.19)
    spec = KernelDispatcher(engine_context())(learning("top_k", 0.5, **LARGE), "auto")
    assert spec.options["inputs"] == "sparse"


IMAGES = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8]}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another rule": (
        {"how": {"use": "bernoulli", "rescale": "static"}, "density": None},
        "bernoulli' with these options has another",
    ),
    "a factor": ({"how": {"use": "top_k", "scale_fan": True}}, "top_k' with these options has a"),
    "convolutions": ({"data": IMAGES, "model": {"use": "conv2", "width": 0.05}}, "Conv2d"),
    "another optimizer": ({"optimizer": OPTIMIZERS["rmsprop"]}, "it has no RMSprop"),
    "another loss": (
        {"objective": {"use": "classification", "label_smoothing": 0.1}},
        "cross-entropy built in",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_it_cannot_learn_is_said(other: str) -> None:
    changes, why = OTHERS[other]
    job = learning(**{"how": "top_k", "density": 0.5, **changes})
    choose = KernelDispatcher(engine_context())
    with pytest.raises(UsageError, match=f"'fused' cannot train this: .*{why}"):
        choose(job, "fused")
    assert choose(job, "auto").name == "mask_training"


def test_no_density_and_masked_biases_are_left_to_the_reference() -> None:
    job = learning("top_k", 0.5)
    of_bias = {"fc1.bias": torch.ones(40, dtype=torch.bool)}
    others = {
        "it learns masks of some density, and there is none": replace(job, budgets=()),
        "and here fc1.bias is masked": replace(job, mask={**job.mask, **of_bias}),
    }
    choose = KernelDispatcher(engine_context())
    for why, other in others.items():
        with pytest.raises(UsageError, match=why):
            choose(other, "fused")
        assert choose(other, "auto").name == "mask_training"


def test_drawn_masks_that_outlive_a_step_are_left_to_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Bernoulli, "refresh", lambda self: 3)
    choose = KernelDispatcher(engine_context())
    for how in ("drawn", "drawn and rescaled"):
        job = learning(HOW[how], None)
        why = "it draws edges in each step, and the parametrization '.*bernoulli' every 3 steps"
        with pytest.raises(UsageError, match=why):
            choose(job, "fused")
        assert choose(job, "auto").name == "mask_training"


UNFIT = {
    "no Flatten": nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 10)),
    "100 inputs, and gets 64": nn.Sequential(nn.Flatten(), nn.Linear(100, 10)),
    "9 outputs for 10 classes": nn.Sequential(nn.Flatten(), nn.Linear(64, 9)),
}
"""Networks that cannot be trained on digits, by what is said of them."""


@pytest.mark.parametrize("why", UNFIT)
def test_a_network_that_does_not_fit_its_data_is_left_to_the_reference(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = of_network(learning("bernoulli", None, steps=3), UNFIT[why], monkeypatch)
    choose = KernelDispatcher(engine_context())
    with pytest.raises(UsageError, match=why):
        choose(job, "fused")
    assert choose(job, "auto").name == "mask_training"
    # It says what is wrong, as torch does.
    with pytest.raises((RuntimeError, IndexError)):
        trained(job, "reference")


@pytest.mark.usefixtures("without_numba")
def test_it_needs_numba() -> None:
    choose, large = KernelDispatcher(engine_context()), learning("top_k", 0.5, **LARGE)
    assert choose(large, "auto") == kernel("mask_training")
    with pytest.raises(UsageError, match=r"it needs numba: install lotteryfw\[fast\]"):
        choose(large, "fused")


@given(
    numbers=st.lists(st.floats(-2, 2, width=16), min_size=1, max_size=300),
    low=st.floats(-2, 2, width=16),
    width=st.sampled_from([0.0, 0.25, 4.0]),
)
@settings(deadline=None)
def test_the_bracket_is_what_numpy_finds(numbers: list[float], low: float, width: float) -> None:
    ranks, high = np.array(numbers, np.float32), np.float32(low + width)
    above, inside = np.empty(len(ranks), bool), np.empty(len(ranks), np.intp)
    count, found = numba_scores.bracket(ranks, low, high, above, inside)
    assert above.tolist() == (ranks > high).tolist()
    assert count == above.sum()
    expected = np.flatnonzero((ranks >= np.float32(low)) & (ranks <= high))
    assert inside[:found].tolist() == expected.tolist()


@given(seed=st.integers(0, 2**64 - 1), size=st.integers(0, 2000))
@settings(deadline=None)
def test_the_random_numbers_are_those_of_torch(seed: int, size: int) -> None:
    numbers, expected = torch.empty(size), torch.empty(size)
    rng = torch.Generator().manual_seed(seed)
    numba_draws.fill_uniform(rng, numbers)
    torch.rand(size, generator=rng, out=expected)
    assert torch.equal(numbers, expected)


def test_the_random_numbers_are_those_of_numpys_mersenne_twister() -> None:
    numbers = torch.empty(2000)
    numba_draws._fill(5489, numbers.numpy())
    words = np.random.RandomState(5489).randint(0, 2**32, size=2000, dtype=np.uint32)
    assert np.array_equal(numbers.numpy(), (words & 0xFFFFFF).astype(np.float32) * 2.0**-24)
    # or torch draws by itself, and nothing is gained
    assert numba_draws._is_generator_of_torch()


def test_a_torch_with_another_generator_draws_the_numbers_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numba_draws, "_is_generator_of_torch", lambda: False)
    monkeypatch.setattr(numba_draws, "_fill", None)
    test_the_random_numbers_are_those_of_torch()
