"""Masks that are learned: the weights that a network computes with, in a step or an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import Group, MaskedLayer, MaskedNetwork
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.evaluate import evaluate, summed_metrics
from lotteryfw.engine.penalties import check_penalty
from lotteryfw.engine.prefetched_draws import PrefetchedDraws
from lotteryfw.engine.runtime import EngineContext, layer_infos
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Evaluate, Train


class _ProgressRead(Exception):
    """A parametrization read the progress of a training."""


class _Timeless(MaskedLayer):
    """A layer whose progress nobody may read."""

    def __getattribute__(self, name: str) -> Any:
        if name == "progress":
            raise _ProgressRead
        return super().__getattribute__(name)


def stream_of_step(job: Train | Evaluate, step: int) -> torch.Generator:
    """Return the random stream that the mask of a training step is drawn from."""
    return stream(job.mask_seed or 0, Stream.MASKS, step)


def stream_of_evaluation(job: Train | Evaluate, draw: int) -> torch.Generator:
    """Return the random stream of one draw of an evaluation: every evaluation has the same."""
    return stream(job.mask_seed or 0, Stream.MASKS, "evaluation", draw)


StreamOf = Callable[[Train | Evaluate, int], torch.Generator]
"""Returns the random stream of a step or of a draw: one of the two functions above."""


class LearnedMask:
    """The masks of a job over a network's values and scores, which it reads as they change."""

    def __init__(
        self,
        job: Train | Evaluate,
        context: EngineContext,
        module: torch.nn.Module,
        state: NetworkState,
    ):
        assert job.parametrization is not None
        assert job.initialiser is not None
        self._job = job
        self._context = context
        self._values = state.values
        self.parametrization: Parametrization = context.component(job.parametrization)

        layers = {}
        for info in layer_infos(context.component(job.model), module):
            name = info.name
            allowed = job.mask[name].to(context.device)
            layers[name] = MaskedLayer(info, state.values[name], state.scores[name], allowed)
        budgets = tuple(Group(members, keep, keep) for members, keep in job.budgets)
        self.net = MaskedNetwork(layers, budgets, context.component(job.initialiser).weight)

        self._step_draws = self._draws_ahead(stream_of_step)
        self._evaluation_draws = self._draws_ahead(stream_of_evaluation)

    def for_step(self, step: int) -> dict[str, Tensor]:
        """Return the masks of a training step."""
        return self._masks(self._step_draws, step, stream_of_step)

    def _masks(
        self, draws: PrefetchedDraws | None, number: int, stream_of: StreamOf
    ) -> dict[str, Tensor]:
        # Masks are bool and have no gradient; it flows through `weight`.
        with torch.no_grad():
            if draws is not None:
                return self.parametrization.masks_from(self.net, draws(number))
            return self.parametrization.sampled(self.net, stream_of(self._job, number))

    def _noise(self, stream_of: StreamOf, number: int) -> dict[str, Tensor] | None:
        infos = [layer.info for layer in self.net.edges.values()]
        return self.parametrization.noise(infos, stream_of(self._job, number))

    def _draws_ahead(self, stream_of: StreamOf) -> PrefetchedDraws | None:
        """Return the masks' random numbers, drawn ahead for a device, where that can be done."""
        # A parametrization that cannot draw ahead says so by returning None.
        if self._context.device == "cpu" or self._noise(stream_of, 0) is None:
            return None
        return PrefetchedDraws(
            lambda number: self._noise(stream_of, number) or {}, self._context.device
        )

    def selected(self) -> dict[str, Tensor]:
        """Return the masks that the scores stand for now."""
        with torch.no_grad():
            return self.parametrization.masks(self.net)

    def is_finite(self) -> bool:
        """Return True if every score is still a finite number."""
        # One number for all layers, so that the host waits once.
        finite = [torch.isfinite(layer.scores).all() for layer in self.net.edges.values()]
        return bool(torch.stack(finite).all())

    def weights(
        self, masks: Mapping[str, Tensor], step_net: MaskedNetwork | None = None
    ) -> dict[str, Tensor]:
        """Return every parameter and buffer as the network computes with them under the masks.

        `step_net` is the network as `at_step` returns it; None in an evaluation.
        """
        weights = dict(self._values)
        for name, layer in (step_net or self.net).edges.items():
            weights[name] = self.parametrization.weight(layer, masks[name])
        return weights

    def at_step(self, step: int) -> MaskedNetwork:
        """Return the network with the progress of a training at this step of its schedule."""
        assert isinstance(self._job, Train)
        progress = step / self._job.total
        edges = {}
        for name, layer in self.net.edges.items():
            edges[name] = replace(layer, progress=progress)
        return replace(self.net, edges=edges)

    def depends_on_progress(self) -> bool:
        """Return whether weights or penalty of a step depend on more than scores and masks.

        A step that does not can be recorded, since all that it reads lies on the device.
        """
        edges = {}
        for name, layer in self.net.edges.items():
            edges[name] = _Timeless(layer.info, layer.weights, layer.scores, layer.allowed)
        try:
            with torch.no_grad():
                for layer in edges.values():
                    self.parametrization.weight(layer, layer.allowed)
                self.parametrization.penalty(replace(self.net, edges=edges))
        except Exception:
            # What breaks for another reason breaks again in the first step, with a message.
            return True
        return False

    def penalty(self, step_net: MaskedNetwork) -> Tensor | None:
        """Return what the parametrization adds to the loss of a step, or None.

        Raises ContractError for anything but a number that can be differentiated.
        """
        penalty = self.parametrization.penalty(step_net)
        if penalty is not None:
            assert self._job.parametrization is not None
            check_penalty(penalty, f"{describe(self._job.parametrization)}: penalty()")
        return penalty

    def evaluated_weights(self) -> Iterator[dict[str, Tensor]]:
        """Yield the weights that an evaluation averages over."""
        with torch.no_grad():
            draws = self.parametrization.draws()
            for draw in range(draws):
                masks = self._masks(self._evaluation_draws, draw, stream_of_evaluation)
                yield self.weights(masks)
            if not draws:
                yield self.weights(self.selected())


def evaluate_learned_mask(
    learned_mask: LearnedMask,
    job: Train,
    context: EngineContext,
    module: torch.nn.Module,
    dataset: DeviceDataset,
    part: str,
) -> tuple[float, float]:
    """Return mean loss (nats) and accuracy over a part of the data.

    Both are means over the draws of masks that the parametrization asks for.
    """
    objective = context.component(job.objective)
    arithmetic = Arithmetic.of(job)
    sums = []
    for weights in learned_mask.evaluated_weights():
        sums.append(summed_metrics(module, weights, dataset, part, objective, arithmetic))

    examples = len(dataset.labels(part))
    losses, accuracies = [], []
    # The only wait for the device.
    for loss, correct in torch.stack(sums).tolist():
        losses.append(loss / examples)
        accuracies.append(correct / examples)
    return sum(losses) / len(sums), sum(accuracies) / len(sums)


def evaluate_state(
    job: Train, context: EngineContext, state: NetworkState, part: str
) -> tuple[float, float]:
    """Return mean loss (nats) and accuracy of a job's network at a state that it once had."""
    dataset = context.dataset_of(job)
    module = context.network_to_measure(job)
    if job.parametrization is None:
        objective = context.component(job.objective)
        arithmetic = Arithmetic.of(job)
        values = {name: arithmetic.laid_out(value) for name, value in state.values.items()}
        return evaluate(module, values, dataset, part, objective, arithmetic)
    # The best state is another than the training's, and the two must not share tensors.
    learned_mask = LearnedMask(job, context, module, state)
    return evaluate_learned_mask(learned_mask, job, context, module, dataset, part)
