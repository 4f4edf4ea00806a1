"""The network, data and optimizer of one training, as several kernels share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.func import functional_call

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import AuxiliaryOutputs, Objective, Parametrization
from lotteryfw.api.layers import UpdateFactors
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import Stream, seed_of
from lotteryfw.api.tickets import REMOVED_WITH
from lotteryfw.engine.activation_checkpointing import checkpoint_activations
from lotteryfw.engine.arithmetic import Arithmetic, LossScaler, has_scaler, without_scaler
from lotteryfw.engine.batch_parts import BatchPart, batch_parts
from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.engine.compiled_forward import CompiledForward, plain_forward
from lotteryfw.engine.evaluate import checked_loss, evaluate, means, summed_metrics, to_device
from lotteryfw.engine.kernels.captured import RecordedEvaluation
from lotteryfw.engine.kernels.mask_constraint import MaskConstraint
from lotteryfw.engine.mask_changes import ChangingMasks
from lotteryfw.engine.penalties import check_penalty, has_penalty, with_penalty
from lotteryfw.engine.ranks.exchange import Ranks, StepExchange
from lotteryfw.engine.ranks.sync_batch_norm import synchronise_batch_norm
from lotteryfw.engine.runtime import EngineContext, layer_infos, seed_torch
from lotteryfw.engine.teacher import Teacher
from lotteryfw.engine.trained_parameters import regroup, split_name, weights_and_scores
from lotteryfw.engine.training_batches import TrainingBatches
from lotteryfw.engine.training_loss import check_outputs, constant_loss, training_loss
from lotteryfw.search.built_optimizer import build_optimizer
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Spec, Train


class TrainedNetwork:
    """A network in training: what is trained of it, how a batch is made, how it is evaluated.

    The weights are trained or, with a parametrization, the scores, or both. A parameter that the network was
    built with at requires_grad=False is a constant: the optimizer never sees it. It is a `Member`.
    """

    def __init__(self, job: Train, context: EngineContext):
        self.job = job
        self._device = context.device
        self.dataset = context.dataset_of(job)
        self.module = context.network(job.model, self.dataset, job.objective)
        if job.activation_checkpointing:
            checkpoint_activations(self.module)
        self.objective: Objective = context.component(job.objective)
        self._has_penalty = has_penalty(self.objective)
        self.arithmetic = Arithmetic.of(job)
        # Evaluations are computed as they are: their batches have other sizes, each to be compiled.
        self._forward = CompiledForward() if job.compiled else plain_forward
        self._teacher = Teacher(job, context, self.dataset) if job.teacher else None
        state = to_device(self.module, NetworkState(job.values, scores=job.scores), context.device)
        # Parametrizations get weights and scores in the usual order of memory, whatever they do.
        if job.parametrization is None:
            laid_out = self.arithmetic.laid_out
            values = {name: laid_out(value) for name, value in state.values.items()}
            state = NetworkState(values)

        self.parameters = self._trained(context, state)
        """The tensors that the optimizer trains: weights by parameter, scores by layer, or both."""
        for value in self.parameters.values():
            value.requires_grad_()
        self.tensors = state
        """All of them, those that are trained included, in which case they require a gradient."""

        self.changing_masks = self._changing_masks(context)
        """The masks of a job with a mask update, which is then the constraint as well."""
        self.mask_constraint = self.changing_masks or MaskConstraint(job.mask, state.values)
        self._batches = TrainingBatches(job, context, self.dataset)
        self.optimizer = build_optimizer(
            context.component(job.optimizer), job.optimizer, self.parameters
        )
        if job.parametrization is not None:
            self._apply_factors(context, job.parametrization)
        self._scaler: LossScaler | None = None
        if job.precision == "fp16":
            self._scaler = LossScaler(self.optimizer, context.device)
        if job.optimizer_state is not None:
            self._load_optimizer(job.optimizer_state)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._factor = 1.0
        self.weights_for_evaluation: Callable[[], Mapping[str, Tensor]] | None = None
        """Returns the weights that evaluations compute with; None for the network's own.

        It must not refer to this object, whose memory would then outlive the training."""
        self.recorded_evaluation: RecordedEvaluation | None = None
        """Makes the evaluations of the curve; None where they cannot be recorded."""
        self.on_restore: Callable[[], None] | None = None
        """Called after a state was restored; with the same condition."""
        self._ranks: Ranks | None = None
        self._exchange: StepExchange | None = None

    def join(self, ranks: Ranks) -> None:
        """Make the updates together with other ranks from now on, with a share of each batch."""
        self._ranks = ranks
        self._batches.join(ranks)
        buffers = []
        for name, _ in self.module.named_buffers():
            # A buffer outside the state dict is no part of a job, and each rank's own.
            if name in self.tensors.values:
                buffers.append(self.tensors.values[name])
        self._exchange = StepExchange(ranks, list(self.parameters.values()), buffers)
        if self.job.sync_batch_norm:
            synchronise_batch_norm(self.module, ranks)

    @property
    def curve_units(self) -> Mapping[str, FigureUnit]:
        """The further curves: those of masks that change."""
        return self.changing_masks.curve_units if self.changing_masks else {}

    def _changing_masks(self, context: EngineContext) -> ChangingMasks | None:
        if self.job.mask_update is None:
            return None
        layers = layer_infos(context.component(self.job.model), self.module)
        return ChangingMasks(self.job, context, layers, self.tensors.values)

    def _trained(self, context: EngineContext, state: NetworkState) -> dict[str, Tensor]:
        """Return the tensors that the optimizer trains; their order numbers its state.

        Raises ContractError where there are none.
        """
        spec, weights = self.job.parametrization, {}
        trains_weights = spec is None or context.component(spec).trains_weights
        for name, value in self.module.named_parameters():
            if trains_weights and value.requires_grad:
                weights[name] = state.values[name]
        if trains_weights and not weights:
            raise ContractError(
                f"model '{self.job.model.use}': every parameter of the network has "
                "requires_grad=False"
            )
        if spec is None:
            return weights
        names = context.component(self.job.model).prunable(self.module)
        scores = {name: state.scores[name] for name in names}
        return weights_and_scores(weights, scores) if trains_weights else scores

    def _apply_factors(self, context: EngineContext, spec: Spec) -> None:
        """Give each trained tensor the learning rate and weight decay of its component."""
        parametrization: Parametrization = context.component(spec)

        def factors_of(label: str) -> UpdateFactors:
            name, is_score = split_name(label)
            # Without weights, scores go by the names of their layers.
            return parametrization.factors(name, is_score or not parametrization.trains_weights)

        regroup(self.optimizer, self.parameters, factors_of, f"{describe(spec)}: factors()")

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of the update from `step` to `step + 1`, augmented.

        A rank gets its share of them.
        """
        return self._batches(step, until=self.job.start + self.job.steps)

    def drawn_order(self, epoch: int) -> Tensor:
        """Return the order of the examples in an epoch, on the CPU."""
        return self.dataset.drawn_order(epoch, self.job.order_seed)

    def seed(self, step: int) -> None:
        """Seed the generators that dropout and the like draw from, for the update from `step`.

        A draw depends on the step and on nothing before it, so that a training that starts from
        a later step draws what the whole one does.
        """
        rank = self._ranks.rank if self._ranks is not None else 0
        # Ranks drop out other units, as the examples of one batch do.
        labels = [rank] if rank else []
        seed_torch(seed_of(self.job.order_seed, Stream.IN_TRAINING, step, *labels), self._device)

    def _seed_update(self, step: int) -> None:
        """Seed the generators for an optimizer that draws: on all ranks alike."""
        labels = (Stream.IN_TRAINING, step, "update")
        seed_torch(seed_of(self.job.order_seed, *labels), self._device)

    def _parts(self, inputs: Tensor, labels: Tensor) -> Sequence[BatchPart]:
        """Return the parts that a batch, or a rank's share of one, is computed in."""
        whole = len(inputs)
        if self._ranks is not None:
            whole = min(self.job.batch, self.dataset.examples)
        return batch_parts(inputs, labels, self.job.accumulate, whole)

    def backward(
        self,
        inputs: Tensor,
        labels: Tensor,
        weights: Mapping[str, Tensor],
        penalty: Tensor | None = None,
    ) -> Tensor:
        """Leave the gradient of a batch's loss in the parameters, and return the loss.

        The network computes with `weights`, which are made of the parameters. `penalty` adds to the
        gradient and not to what is returned.
        """
        # An evaluation leaves the module in the other mode.
        self.module.train()
        self.optimizer.zero_grad()
        losses = []
        parts = self._parts(inputs, labels)
        for number, part in enumerate(parts, 1):
            losses.append(self._add_gradient(part, weights, penalty, is_last=number == len(parts)))
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return loss if self._exchange is None else self._exchange.add_up(loss)

    def _add_gradient(
        self,
        part: BatchPart,
        weights: Mapping[str, Tensor],
        penalty: Tensor | None,
        is_last: bool,
    ) -> Tensor:
        """Add the gradient of a part of a batch, and return the part's share of the loss."""
        outputs = self.arithmetic.training_outputs(self.module, weights, part.inputs, self._forward)
        check_outputs(self.job, outputs)
        loss = self._loss(outputs, part.inputs, part.labels)
        minimised = with_penalty(with_penalty(loss, penalty), self._objective_penalty(weights))
        if not minimised.requires_grad:
            raise constant_loss(self.job, outputs)
        if part.share < 1:
            loss, minimised = loss * part.share, minimised * part.share
        # The parts share what leads from scores to weights.
        if self._scaler is None:
            torch.autograd.backward(minimised, retain_graph=not is_last)
        else:
            self._scaler.backward(minimised, retain_graph=not is_last)
        return loss.detach()

    def _loss(self, outputs: Tensor | AuxiliaryOutputs, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch, against the teacher where the job has one."""
        objective = self.objective
        if self._teacher is None:
            return training_loss(
                lambda head: checked_loss(objective, objective.loss(head, inputs, labels, "mean")),
                outputs,
            )
        taught = self._teacher.outputs(inputs)

        def taught_loss(head: Tensor) -> Tensor:
            loss = objective.taught_loss(head, taught, inputs, labels)
            return checked_loss(objective, loss, "taught_loss")

        return training_loss(taught_loss, outputs)

    def _objective_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Return what the objective adds to the loss of a step. Raises ContractError."""
        if not self._has_penalty:
            return None
        layers = {name: weights[name] for name in self.job.mask}
        penalty = self.objective.penalty(layers)
        if penalty is not None:
            check_penalty(penalty, f"{describe(self.job.objective)}: penalty()")
        return penalty

    def apply_gradients(self) -> None:
        """Make the optimizer's step along the gradients, at the learning rate that it has."""
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)

    def optimizer_step(self, factor: float) -> None:
        """Make the optimizer's step along the gradients, at `factor` times the learning rate."""
        # Groups are written to when the rate changes, and not at every step.
        if factor != self._factor:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._factor = factor
        self.apply_gradients()

    def backward_step(
        self,
        step: int,
        factor: float,
        weights: Mapping[str, Tensor],
        penalty: Tensor | None = None,
    ) -> Tensor:
        """Make the optimizer's step for the batch of a step, and return the loss of the batch."""
        loss = self.backward(*self.batch(step), weights, penalty)
        if self._ranks is not None:
            self._seed_update(step)
        self.optimizer_step(factor)
        return loss

    def gradients(self, step: int) -> dict[str, Tensor]:
        """Return by layer the gradient of the loss of a step's batch, at the weights as they are.

        Masked weights have one, too. The training goes on as if it had not been computed: it works
        on copies of the buffers, and random streams, such as dropout's, are put back.
        """
        inputs, labels = self.batch(step)
        values = {}
        for name, value in self.tensors.values.items():
            values[name] = value.detach().clone()
        layers = {name: values[name].requires_grad_() for name in self.job.mask}
        by_layer = {name: torch.zeros_like(layer) for name, layer in layers.items()}
        # Only the streams that dropout draws from: forking all devices would wait for each.
        devices = [torch.cuda.current_device()] if inputs.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            self.module.train()
            for part in self._parts(inputs, labels):
                outputs = functional_call(self.module, values, (part.inputs,))
                loss = self._loss(outputs, part.inputs, part.labels) * part.share
                gradients = torch.autograd.grad(loss, list(layers.values()), allow_unused=True)
                for name, gradient in zip(layers, gradients, strict=True):
                    # A layer that the loss does not depend on has no gradient, which is 0.
                    if gradient is not None:
                        by_layer[name] += gradient
        if self._ranks is not None:
            for gradient in by_layer.values():
                self._ranks.add_up(gradient)
        return by_layer

    def change_masks(self, step: int) -> None:
        """Change the masks after the update that ends at `step`, where a mask update says so."""
        if self.changing_masks is not None:
            # The gradient is computed when the update asks for it, and once.
            gradients = cache(partial(self.gradients, step))
            self.changing_masks.change(step, self.optimizer, gradients)

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data."""
        measured = (self.dataset, part, self.objective, self.arithmetic)
        if self.weights_for_evaluation is not None:
            with torch.no_grad():
                weights = self.weights_for_evaluation()
            return evaluate(self.module, weights, *measured)
        compute = partial(summed_metrics, self.module, self.state().values, *measured)
        # The curve is made of validation data. The test set is read once.
        recorded = self.recorded_evaluation if part == "validation" else None
        return means(recorded.sums(compute) if recorded else compute(), self.dataset, part)

    def curve_figures(self) -> Mapping[str, float]:
        """Return the figures of masks that change; without those the curve has no others."""
        return self.changing_masks.curve_figures() if self.changing_masks else {}

    def state(self) -> NetworkState:
        """Return every parameter, buffer and score now (not copies), and masks that change."""
        values = {name: value.detach() for name, value in self.tensors.values.items()}
        scores = {name: score.detach() for name, score in self.tensors.scores.items()}
        if self.changing_masks is None:
            return NetworkState(values, scores=scores)
        changing = self.changing_masks
        return NetworkState(values, changing.masks, scores, {REMOVED_WITH: changing.removed_with})

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, as tensors, and that of the scaler of losses."""
        tensors = optimizer_tensors(self.optimizer)
        return tensors if self._scaler is None else tensors | self._scaler.state()

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        load_optimizer(self.optimizer, without_scaler(tensors))
        # A training that goes on in another precision has no use for a scale, or none to begin at.
        if self._scaler is not None and has_scaler(tensors):
            self._scaler.restore(tensors)

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this network had."""
        own = self.state()
        for name, value in own.values.items():
            value.copy_(state.values[name])
        for name, score in own.scores.items():
            score.copy_(state.scores[name])
        if self.changing_masks is not None:
            self.changing_masks.restore(state)
        self._load_optimizer(optimizer_state)
        if self.on_restore is not None:
            self.on_restore()
