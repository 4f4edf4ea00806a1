"""The kernel that learns masks: the reference's step with scores in the place of weights.

Weights are constants unless the parametrization trains them, too: the optimizer never sees them, so
they stay as they are bit for bit, but for changes that a parametrization makes after a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

import torch
from torch import Tensor

from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine.kernels.captured import RecordedUpdates, recorder_for
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.recorded_network import recorded_updates
from lotteryfw.engine.kernels.selection_stats import CURVE_UNITS, SelectionStats
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.learned_mask import LearnedMask, evaluate_learned_mask
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train


class MaskTraining:
    """Trains every job with a parametrization. It is its own and only `Member`."""

    loss_dtype = torch.float32
    curve_units = CURVE_UNITS

    def __init__(self, job: Train, context: EngineContext):
        self._job = job
        self._context = context
        self.network = TrainedNetwork(job, context)
        self.learned_mask = LearnedMask(job, context, self.network.module, self.network.tensors)
        self._parametrization = self.learned_mask.parametrization
        self._refresh = self._parametrization.refresh()
        self._recorded: RecordedUpdates | None = None
        can_record = recorder_for(self.network.optimizer, context.device) is not None
        if can_record and not self.learned_mask.depends_on_progress():
            self._recorded = recorded_updates(self.network, context.device)
        self.masks: Mapping[str, Tensor] | None = None
        """The masks of the last step; None before the first.

        None, too, after a return to a state where masks are made anew in each step."""
        layers = self.learned_mask.net.edges
        self._stats = SelectionStats({name: layer.allowed for name, layer in layers.items()})

    @property
    def members(self) -> Sequence[MaskTraining]:
        """The network."""
        return (self,)

    def update(self, step: int, factor: float) -> Tensor:
        """Make one optimizer update of what is trained, and return the loss of its batch."""
        self.network.seed(step)
        if self.masks is None or (step - self._job.start) % self._refresh == 0:
            self._set_masks(self.learned_mask.for_step(step))
        assert self.masks is not None
        if self._recorded is not None:
            loss = self._recorded.update(step, factor, self._recorded_step)
        else:
            net = self.learned_mask.at_step(step)
            weights = self.learned_mask.weights(self.masks, net)
            loss = self.network.backward_step(step, factor, weights, self.learned_mask.penalty(net))
        with torch.no_grad():
            rng = stream(self._job.mask_seed or 0, Stream.AFTER_STEP, step)
            self._parametrization.after_step(step, self.learned_mask.net, self.masks, rng)
        return loss

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Compute with these masks from now on; they are made before a recorded update."""
        if self._recorded is None:
            self.masks = masks
        elif self.masks is None:
            # The recording reads these tensors; later masks are copied into them.
            self.masks = {name: mask.clone() for name, mask in masks.items()}
        else:
            for name, mask in self.masks.items():
                mask.copy_(masks[name])
        self._stats.update(masks)

    def _recorded_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Do everything of an update that happens on the device, at the rates that lie there."""
        assert self.masks is not None
        learned_mask, network = self.learned_mask, self.network
        weights = learned_mask.weights(self.masks)
        loss = network.backward(inputs, labels, weights, learned_mask.penalty(learned_mask.net))
        network.apply_gradients()
        return loss

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data.

        The loss is NaN where scores have diverged, since masks can be made of those all the same.
        """
        # A mask of NaN scores is a valid mask, whose loss may be finite.
        if not self.learned_mask.is_finite():
            return nan, 0.0
        network = self.network
        return evaluate_learned_mask(
            self.learned_mask, self._job, self._context, network.module, network.dataset, part
        )

    def curve_figures(self) -> Mapping[str, float]:
        """Return how far the masks still move (see `SelectionStats.figures`)."""
        return self._stats.figures(self.learned_mask.selected())

    def state(self) -> NetworkState:
        """Return every parameter, buffer and score now, and the mask where it outlives a step."""
        state = self.network.state()
        # Masks that are made anew in each step need not be in a checkpoint.
        masks = self.masks if self.masks and self._refresh > 1 else {}
        return NetworkState(state.values, masks, state.scores, self._stats.extra())

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, as tensors."""
        return self.network.optimizer_state()

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this kernel gave."""
        self.masks = {name: mask.clone() for name, mask in state.masks.items()} or None
        self._stats.restore(state.extra)
        self.network.restore(state, optimizer_state)


def _make(jobs: Sequence[Train], context: EngineContext) -> MaskTraining:
    (job,) = jobs
    return MaskTraining(job, context)


def _why_not(candidate: Candidate) -> str | None:
    if candidate.job.parametrization is None:
        return "it learns masks, and here weights are trained"
    return None


def _options(candidate: Candidate) -> dict[str, int]:
    # Recorded updates read the learning rate as a float32 number.
    return {"recorded": 1} if candidate.job.device == "cuda" else {}


KERNEL = KernelDescription(
    name="mask_training",
    revision=2,
    why_not=_why_not,
    gain=lambda candidate: 1.0,
    make=_make,
    options=_options,
    any_arithmetic=True,
)
