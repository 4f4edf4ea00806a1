"""Probe jobs: what the engine gives a component, what it accepts from it, and what it stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small import (
    DATA,
    cell,
    dense_job,
    engine_context,
    execute_one,
    gradient_job,
    probe_job,
)
from support.trainings import of_network
from torch import Tensor, nn
from torch.func import functional_call

from lotteryfw.api.errors import ContractError, LotteryError, PluginError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import Layer
from lotteryfw.api.probe import NetworkCriterion, Probe
from lotteryfw.api.rng import stream
from lotteryfw.engine import EngineContext, StoredOutcome, spool, unspool
from lotteryfw.engine.probe_job import run_probe
from lotteryfw.search.jobs import ProbeJob, Spec, Train, without_tensors
from lotteryfw.store import Store

torch.set_num_threads(1)
SPEC = Spec("criterion", "net", "tests", {})


class NoScores(MaskCriterion):
    """Asks for a probe without a method that takes it."""

    use = "net"
    needs = NetworkCriterion.needs

    def score(self, layer: Layer) -> Tensor:
        return layer.probed


def context_with(component: Any, monkeypatch: pytest.MonkeyPatch) -> EngineContext:
    """An engine in which the criterion "net" is this component."""
    context = engine_context()
    real = context.component
    monkeypatch.setattr(
        context, "component", lambda spec: component if spec == SPEC else real(spec)
    )
    return context


def half_masked() -> Train:
    job = dense_job(cell(10))
    mask, values = {}, dict(job.values)
    for name, whole in job.mask.items():
        mask[name] = torch.rand(whole.shape, generator=stream("half", name)) < 0.5
        values[name] = values[name] * mask[name]
    return replace(job, mask=mask, values=values)


def answered(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Probe], Any], *labels: str | int
) -> dict[str, Tensor]:
    context = context_with(SimpleNamespace(scores=answer), monkeypatch)
    return run_probe(probe_job(half_masked(), SPEC, *labels), context)


def test_a_last_batch_of_one_example_joins_the_one_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    gradients = []
    for batch in (16, 17):
        job = dense_job(cell(10, data={**DATA, "examples": 17}, batch=16))
        job = of_network(job, network, monkeypatch)
        mask = {name: job.mask[name] for name in ("1.weight", "4.weight")}
        job = replace(job, batch=batch, mask=mask)
        gradients.append(run_probe(gradient_job(job), engine_context()))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name])


def test_the_gradient_has_the_bits_of_a_plain_loop_over_the_training_set() -> None:
    """The loop that stood here before the gradient became a probe."""
    job = half_masked()
    context = engine_context()
    dataset = context.dataset(job.data)
    objective = context.component(job.objective)
    module = context.network(job.model, dataset, job.objective).train()
    values = {name: value.clone() for name, value in job.values.items()}
    layers = {name: values[name].requires_grad_() for name in job.mask}
    total = {name: torch.zeros_like(layer) for name, layer in layers.items()}
    for inputs, labels in dataset.batches("train", job.batch):
        outputs = functional_call(module, values, (inputs,))
        loss = objective.loss(outputs, inputs, labels, "sum") / dataset.examples
        gradients = torch.autograd.grad(loss, list(layers.values()))
        for name, gradient in zip(layers, gradients, strict=True):
            total[name] += gradient

    ours = run_probe(gradient_job(job), context)
    assert ours.keys() == total.keys()
    for name, gradient in total.items():
        assert torch.equal(ours[name], gradient)
        assert not ours[name].requires_grad


def test_a_component_is_shown_the_network_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = half_masked()
    seen: list[Any] = []

    def look(probe: Probe) -> dict[str, Tensor]:
        seen.append((tuple(layer.name for layer in probe.layers), probe.layers[-1].is_output))
        for name in job.mask:
            assert torch.equal(probe.weights[name], job.values[name])
            assert torch.equal(probe.masks[name], job.mask[name])
        (batch,) = probe.batches("train", 1, 30)
        seen.append(batch[0])
        return {name: value.double() for name, value in probe.weights.items()}

    scores = answered(monkeypatch, look, 0, "net", 1)
    assert seen[0] == (tuple(job.mask), True)
    assert {score.dtype for score in scores.values()} == {torch.float64}
    answered(monkeypatch, look, 0, "net", 1)
    answered(monkeypatch, look, 0, "net", 2)
    first, again, other_level = seen[1], seen[3], seen[5]
    assert torch.equal(first, again)
    assert not torch.equal(first, other_level)


def test_torchs_own_generator_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws from it."""

    def draw(probe: Probe) -> dict[str, Tensor]:
        return {name: torch.rand(value.shape) for name, value in probe.weights.items()}

    state = torch.random.get_rng_state()
    one, same = answered(monkeypatch, draw, 0), answered(monkeypatch, draw, 0)
    other = answered(monkeypatch, draw, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, drawn in one.items():
        assert torch.equal(drawn, same[name])
        assert not torch.equal(drawn, other[name])


def one_replaced(value: Callable[[Tensor], Any]) -> Callable[[Probe], dict[str, Any]]:
    return lambda probe: {**probe.weights, "fc2.weight": value(probe.weights["fc2.weight"])}


def not_finite(probe: Probe) -> dict[str, Tensor]:
    scores = {name: value.clone() for name, value in probe.weights.items()}
    scores["fc2.weight"][probe.masks["fc2.weight"]] = float("nan")
    return scores


def in_place(probe: Probe) -> dict[str, Tensor]:
    probe.tensors["fc1.bias"].add_(1)
    return dict(probe.weights)


def breaking(probe: Probe) -> dict[str, Tensor]:
    raise ZeroDivisionError("oops")


UNUSABLE: dict[str, tuple[Callable[[Probe], Any], str]] = {
    "no dict": (lambda probe: None, r"scores\(\) gave a NoneType, not a dict of tensors by layer"),
    "a layer is missing": (
        lambda probe: {"fc1.weight": probe.weights["fc1.weight"]},
        r"scores\(\) gave nothing for layer fc2\.weight",
    ),
    "no such layer": (
        lambda probe: {**probe.weights, "fc9": torch.ones(1)},
        r"names no layer of the network: fc9; it has fc1\.weight",
    ),
    "no tensor": (one_replaced(lambda value: 1.0), r"fc2\.weight returned float, not a tensor"),
    "another shape": (one_replaced(lambda value: value[0]), r"fc2\.weight returned shape \[8\]"),
    "integers": (one_replaced(lambda value: value.long()), r"fc2\.weight returned dtype"),
    "not finite": (not_finite, r"fc2\.weight: (\d+) of \1 scores of living weights are NaN"),
    "in place": (in_place, r"scores\(\) changed `fc1\.bias` of the probed network in place"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_unusable_scores_are_refused_by_component_and_layer(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, message = UNUSABLE[fault]
    with pytest.raises(ContractError, match=rf"criterion 'net' of tests: .*{message}"):
        answered(monkeypatch, answer)


def test_dead_weights_may_have_any_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite_where_dead(probe: Probe) -> dict[str, Tensor]:
        scores = {}
        for name, value in probe.weights.items():
            scores[name] = value.masked_fill(~probe.masks[name], float("inf"))
        return scores

    assert answered(monkeypatch, infinite_where_dead).keys() == half_masked().mask.keys()


def test_a_component_that_breaks_or_takes_no_probe_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(PluginError, match=r"criterion 'net' of tests broke in scores\(\).*oops"):
        answered(monkeypatch, breaking)
    context = context_with(NoScores(), monkeypatch)
    with pytest.raises(ContractError, match=r"needs a probe .* has no scores\(probe\)"):
        run_probe(probe_job(half_masked(), SPEC), context)


def test_too_few_examples_are_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def many(probe: Probe) -> dict[str, Tensor]:
        list(probe.batches("train", 3, 128))
        return dict(probe.weights)

    with pytest.raises(LotteryError, match=r"3 batches of 128 examples .* has 330 examples"):
        answered(monkeypatch, many)


def test_a_probe_is_stored_once_under_its_kind(tmp_path: Path) -> None:
    store, job = Store(tmp_path), gradient_job(half_masked())
    execute_one(job, store, engine_context(), lambda done, of: False)
    folder = store.path(job.key, "probe")
    assert folder is not None
    stored = StoredOutcome(store, job.key).tensors().values
    for name, gradient in run_probe(job, engine_context()).items():
        assert torch.equal(stored[name], gradient)
    written = (folder / "tensors.safetensors").stat().st_mtime_ns
    execute_one(job, store, engine_context(), lambda done, of: False)
    assert (folder / "tensors.safetensors").stat().st_mtime_ns == written


def test_a_probe_survives_the_trip_to_another_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = probe_job(half_masked(), SPEC, 3, "net", 1)
    back = unspool(spool(job, store), store)
    assert isinstance(back, ProbeJob)
    assert back.key == job.key
    assert (back.layers, back.stream_labels, back.component) == (
        job.layers,
        job.stream_labels,
        job.component,
    )
    light = without_tensors(job)
    assert (light.key, light.values, light.mask) == (job.key, {}, {})


def test_a_key_has_what_decides_the_result_and_nothing_else() -> None:
    job = probe_job(half_masked(), SPEC, 3, "net", 1)
    assert replace(job, origin="elsewhere").key == job.key
    changed = [
        replace(job, component=replace(SPEC, options={"batches": 2})),
        replace(job, stream_labels=(4, "net", 1)),
        replace(job, values={**job.values, "fc1.bias": job.values["fc1.bias"] + 1}),
        replace(job, mask={**job.mask, "fc1.weight": ~job.mask["fc1.weight"]}),
        replace(job, fingerprint="other files"),
    ]
    assert len({job.key, *(other.key for other in changed)}) == len(changed) + 1
