"""Runs probe jobs: a component's tensors of a whole network, checked before they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError, UsageError
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.probe import Probe
from lotteryfw.api.rng import Stream, seed_of
from lotteryfw.engine.evaluate import to_device
from lotteryfw.engine.probe import NetworkProbe
from lotteryfw.engine.runtime import EngineContext, seed_torch
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import ProbeJob, Spec
from lotteryfw.search.top_k import check_tensor


class ScoresNetworks(Protocol):
    """A component with a method that a probe is handed to."""

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        """Return by layer a floating-point tensor of the layer's shape."""
        ...


class MeanGradient:
    """The gradient of the mean loss over the whole training set, in the training mode.

    It is float32 whatever the precision of trainings: criteria rank gradients, and small ones
    vanish in a reduced precision.
    """

    def __init__(self, batch: int):
        """`batch` is the number of examples in one backward pass, which decides the rounding."""
        self._batch = batch

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        """Return by layer, float32 [s]: the gradient."""
        weights, total = {}, {}
        for name, value in probe.weights.items():
            weights[name] = value.clone().requires_grad_()
            total[name] = torch.zeros_like(value)
        examples = probe.examples("train")
        for inputs, labels in _joined(probe.all_batches("train", self._batch)):
            loss = probe.loss(inputs, labels, weights, reduction="sum") / examples
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += gradient
        return total


def _joined(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches, a last one of one example together with the one before it.

    Batch normalisation in the training mode has no variance of a single example.
    """
    inputs = labels = torch.empty(0)
    for more_inputs, more_labels in batches:
        if len(more_labels) == 1 < len(labels):
            inputs = torch.cat([inputs, more_inputs])
            labels = torch.cat([labels, more_labels])
            continue
        if len(labels):
            yield inputs, labels
        inputs, labels = more_inputs, more_labels
    yield inputs, labels


BUILT_IN_PROBES = {"gradient": MeanGradient}
"""The probes that the engine has itself, by name: components of the kind "probe" in jobs."""


def run_probe(job: ProbeJob, context: EngineContext) -> dict[str, Tensor]:
    """Return by layer what the job's component computes of its network.

    Raises ContractError for anything but a floating-point tensor of its shape for each layer,
    finite where the layer's mask is alive.
    """
    dataset = context.dataset_of(job)
    module = context.network(job.model, dataset, job.objective)
    masks = {name: job.mask[name].to(context.device) for name in job.layers}
    layers = []
    for name in job.layers:
        shape = tuple(job.values[name].shape)
        layers.append(LayerInfo(name, shape, is_output=name == job.layers[-1]))
    probe = NetworkProbe(
        module,
        to_device(module, NetworkState(job.values), context.device).values,
        masks,
        tuple(layers),
        dataset,
        context.component(job.objective),
        job.stream_labels,
    )
    component = _component(job.component, context)
    with torch.random.fork_rng(devices=[]):
        # dropout and the like draw from torch's own generator
        seed_torch(seed_of(*job.stream_labels, Stream.IN_TRAINING), context.device)
        # torch counts the writes to a tensor, which costs nothing; comparing values would.
        before = {name: value._version for name, value in probe.tensors.items()}
        try:
            with blame(job.component, "scores"):
                scores: object = component.scores(probe)
        except UsageError as error:
            # the probe refuses what an option asks for, and does not know whose option it is
            raise UsageError(f"{describe(job.component)}: {error}") from error
    for name, value in probe.tensors.items():
        if value._version != before[name]:
            raise ContractError(
                f"{describe(job.component)}: scores() changed `{name}` of the probed network in "
                "place: work on a copy (`.clone()`)"
            )
    return checked_scores(job.component, scores, probe.layers, masks)


def checked_scores(
    spec: Spec, scores: object, layers: tuple[LayerInfo, ...], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a component's scores by layer, detached. Raises ContractError for unusable ones."""
    who = f"{describe(spec)}: scores()"
    if not isinstance(scores, Mapping):
        raise ContractError(f"{who} gave a {type(scores).__name__}, not a dict of tensors by layer")
    for name in scores:
        if name not in masks:
            raise ContractError(
                f"{who} names no layer of the network: {name}; it has {', '.join(masks)}"
            )
    checked = {}
    for layer in layers:
        if layer.name not in scores:
            raise ContractError(f"{who} gave nothing for layer {layer.name}")
        where = f"{who} for layer {layer.name}"
        score = check_tensor(scores[layer.name], layer.shape, where).detach()
        # A removed weight may have any score: nobody ranks it.
        alive = masks[layer.name]
        unusable = int((~torch.isfinite(score) & alive.to(score.device)).sum())
        if unusable:
            raise ContractError(
                f"{where}: {unusable} of {int(alive.sum())} scores of living weights are NaN or "
                "infinite"
            )
        checked[layer.name] = score
    return checked


def _component(spec: Spec, context: EngineContext) -> ScoresNetworks:
    if spec.kind == "probe":
        return BUILT_IN_PROBES[spec.use](**spec.options)
    component: ScoresNetworks = context.component(spec)
    if not hasattr(component, "scores"):
        raise ContractError(
            f"{describe(spec)} needs a probe (Need.PROBE) and has no scores(probe): derive it from "
            "lotteryfw.NetworkCriterion"
        )
    return component
