"""The lockstep kernel: MLPs of one shape trained together, step by step, their weights stacked.

The step of a small network is mostly the cost of launching its operations, so a group of sixteen
takes one step in little more time than one of them, and on a GPU far more of them do. The
arithmetic is the fused kernel's with batched products.

Which others are in a group changes no bit of a member's result on the CPU, and on a GPU nothing
beyond rounding. Everything but the products works element by element or row by row; `stacking`
makes the products alike. A product with a side of 1, which BLAS computes in another way for one
member than for several, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.augmenter import Augmenter
from lotteryfw.engine.evaluate import means
from lotteryfw.engine.kernels.captured import (
    Batches,
    GatheredBatches,
    LearningRates,
    LoadedBatches,
    RecordedUpdates,
    recorder_for,
)
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.kernels.mask_constraint import MaskConstraint
from lotteryfw.engine.kernels.mlp import mlp_layers, why_no_mlp
from lotteryfw.engine.kernels.optimizer_rules import plain_rate, why_no_rule
from lotteryfw.engine.kernels.stacking import (
    aligned,
    aligned_size,
    calls,
    empty_stack,
    linear,
    member_bytes,
    product,
    split,
)
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.built_optimizer import build_optimizer
from lotteryfw.search.jobs import Train

SMALL = 65_536
"""Weights below which the CPU gains enough to wait for a group (benchmarks/lockstep.py).

A GPU always does."""


class Group:
    """The networks of jobs with one `group_key`, all at one step."""

    loss_dtype = torch.float32

    def __init__(self, jobs: Sequence[Train], context: EngineContext):
        self._job = job = jobs[0]
        self._count = len(jobs)
        self._dataset = dataset = context.dataset_of(job)
        paths = mlp_layers(context.network(job.model, dataset, job.objective))
        assert not isinstance(paths, str), paths
        self._stack_parameters(jobs, paths, context.device)

        optimizer = context.component(job.optimizer)
        # A component may read names and shapes, so it gets those of one network.
        self._optimizer = build_optimizer(optimizer, job.optimizer, self.values(0))
        (self._options,) = self._optimizer.param_groups
        self._options["params"] = [self._flat]
        self._base_rate = self._options["lr"]
        self._rate = plain_rate(self._optimizer)
        self._gradients: dict[str, Tensor] = {}
        if self._rate is None:
            self._flat.grad = torch.zeros_like(self._flat)
            self._gradients = self._split(self._flat.grad)

        # Members with equal seeds see one batch, which is then made once.
        seeds = [(member.order_seed, member.augment_seed) for member in jobs]
        self._seeds = seeds[:1] if len(set(seeds)) == 1 else seeds
        self._augmenters: list[Augmenter] = []
        if job.augment:
            augmentations = [context.component(spec) for spec in job.augment]
            for _, seed in self._seeds:
                self._augmenters.append(Augmenter(augmentations, seed, context.device))
        self._epoch, self._orders = -1, torch.empty(0)

        self._allocate_buffers(min(job.batch, dataset.examples), context.device)
        self._evaluated: dict[str, list[tuple[float, float]]] = {}
        self._recorded = self._recorded_updates(context.device)
        for slot, member in enumerate(jobs):
            self.load_optimizer_state(slot, member.optimizer_state or {})

    def _stack_parameters(self, jobs: Sequence[Train], paths: Sequence[str], device: str) -> None:
        """Put the parameters of all members into one flat tensor."""
        names = []
        for path in paths:
            for name in (f"{path}.weight", f"{path}.bias"):
                if name in jobs[0].values:
                    names.append(name)
        self._shapes = {name: jobs[0].values[name].shape for name in names}
        size = sum(aligned_size(shape) for shape in self._shapes.values()) * self._count
        # One tensor for all parameters of all members: the optimizer updates it in one call.
        self._flat = torch.zeros(size, device=device)
        # The padding counts as alive: nothing ever writes to it.
        alive = torch.ones(size, device=device, dtype=torch.bool)
        self._stacks, masks = self._split(self._flat), self._split(alive)
        for slot, job in enumerate(jobs):
            for name in names:
                self._stacks[name][slot].copy_(job.values[name])
            for name, mask in job.mask.items():
                masks[name][slot].copy_(mask)
        self._mask_constraint = MaskConstraint({"": alive}, {"": self._flat})
        self._weights = [self._stacks[f"{path}.weight"] for path in paths]
        self._biases = [self._stacks.get(f"{path}.bias") for path in paths]

    def _allocate_buffers(self, batch: int, device: str) -> None:
        shapes = [(self._count, batch, weight.shape[1]) for weight in self._weights]
        self._outputs = [empty_stack(shape, device) for shape in shapes]
        self._output_gradients = [empty_stack(shape, device) for shape in shapes]
        self._positive = [
            torch.empty(shape, dtype=torch.bool, device=device) for shape in shapes[:-1]
        ]
        # Made once, since a tensor that is made within a recording would be filled at each replay.
        self._minus_one = torch.full((self._count, batch, 1), -1.0, device=device)

    @property
    def members(self) -> Sequence[LockstepMember]:
        """The networks.

        The group does not keep them, so that it and its memory on the device are released with
        the last of them.
        """
        return [LockstepMember(self, slot) for slot in range(self._count)]

    def update(self, step: int, factor: float) -> Tensor:
        """Make one optimizer update of every member, and return the losses [members]."""
        # Members ask for their evaluation one after another, and share one computation until here.
        self._evaluated.clear()
        with torch.no_grad():
            if self._recorded is not None:
                return self._recorded.update(step, factor, self._recorded_step)
            inputs, labels = self._batch(step)
            losses = self._forward(inputs, labels)
            self._backward(inputs, factor)
            if self._rate is None:
                self._options["lr"] = self._base_rate * factor
                self._optimizer.step()
            self._mask_constraint.apply()
        return losses

    def _recorded_updates(self, device: str) -> RecordedUpdates | None:
        """Return the updates from a recording, where device and optimizer allow one."""
        recorder = recorder_for(self._optimizer, device)
        # Other devices and optimizers make every update operation by operation.
        if recorder is None:
            return None
        job, dataset = self._job, self._dataset
        batches: Batches
        if self._augmenters or not dataset.is_on_device:
            # An augmentation may do anything, and mapped inputs lie on the CPU: neither is recorded.
            batches = LoadedBatches(self._loaded_batch)
        else:
            batches = GatheredBatches(
                dataset, self._drawn_orders, job.batch, job.steps_per_epoch, device
            )
        rates = LearningRates(self._optimizer, device)
        return RecordedUpdates(recorder, batches, rates, torch.zeros(self._count, device=device))

    def _recorded_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Do everything of an update that happens on the device, at the rates that lie there."""
        inputs, labels = self._for_all_members(inputs, labels)
        losses = self._forward(inputs, labels)
        self._backward(inputs)
        if self._rate is None:
            self._optimizer.step()
        self._mask_constraint.apply()
        return losses

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs [members, batch, features] and labels [members, batch]."""
        return self._for_all_members(*self._loaded_batch(step))

    def _drawn_orders(self, epoch: int) -> Tensor:
        """Return the orders [seeds, examples] of an epoch, on the CPU; one where seeds agree."""
        return torch.stack([self._dataset.drawn_order(epoch, seed) for seed, _ in self._seeds])

    def _loaded_batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs [seeds, batch, *shape], augmented, and labels [seeds, batch]."""
        job = self._job
        epoch, batch = divmod(step, job.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._orders = epoch, self._drawn_orders(epoch).to(self._flat.device)
        indices = self._orders[:, batch * job.batch : (batch + 1) * job.batch]
        inputs, labels = self._dataset.at(indices)
        if self._augmenters:
            by_seed = zip(self._augmenters, inputs, strict=True)
            inputs = torch.stack([augmenter(images, step) for augmenter, images in by_seed])
        return inputs, labels

    def _for_all_members(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batches of the seeds as those of the members."""
        # Products round by where a matrix starts in memory, so copies of it start alike.
        inputs = aligned(inputs.flatten(2))
        return inputs.expand(self._count, -1, -1), labels.expand(self._count, -1)

    def _forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Fill the outputs of every layer and d loss / d logits; return the losses [members]."""
        x = inputs
        for weight, bias, out in zip(self._weights, self._biases, self._outputs, strict=True):
            x = linear(x, weight, bias, out)
            x = x if out is self._outputs[-1] else x.relu_()

        log_p = torch.log_softmax(x, 2)
        label = labels.unsqueeze(2)
        gradient = torch.exp(log_p, out=self._output_gradients[-1])
        # d loss / d logits of the mean cross-entropy is (softmax - one-hot) / batch.
        gradient.scatter_add_(2, label, self._minus_one).div_(labels.shape[1])
        return -log_p.gather(2, label).mean((1, 2))

    def _backward(self, inputs: Tensor, factor: float | None = None) -> None:
        """Fill the gradients of all outputs, then those of the parameters.

        With plain SGD the parameters are updated at once: at `factor` times the learning rate, or,
        where that is None, at the rate that lies on the device.
        """
        layer_inputs = [inputs, *self._outputs[:-1]]
        for upper in range(len(layer_inputs) - 1, 0, -1):
            lower = upper - 1
            gradient = self._output_gradients[lower]
            product(self._output_gradients[upper], self._weights[upper], gradient)
            # torch's ReLU has the derivative 0 at 0, so the comparison is strict.
            torch.gt(self._outputs[lower], 0.0, out=self._positive[lower])
            gradient.mul_(self._positive[lower])

        names = iter(self._shapes)
        layers = zip(layer_inputs, self._output_gradients, self._weights, self._biases, strict=True)
        for x, gradient, weight, bias in layers:
            if self._rate is not None:
                # With a recorded rate the gradient is scaled on the device, and the product is
                # taken as it is.
                rate = 1.0 if factor is None else self._rate * factor
                if factor is None and self._recorded is not None:
                    gradient.mul_(self._recorded.rates.tensors[0])
                for members in calls(weight):
                    weight[members].baddbmm_(gradient[members].mT, x[members], alpha=-rate)
                if bias is not None:
                    bias.sub_(gradient.sum(1), alpha=rate)
            else:
                product(gradient.mT, x, self._gradients[next(names)])
                if bias is not None:
                    torch.sum(gradient, 1, out=self._gradients[next(names)])

    def evaluate(self, part: str) -> list[tuple[float, float]]:
        """Return every member's mean loss and accuracy, computed once for all of them."""
        if part in self._evaluated:
            return self._evaluated[part]
        # The curve is made of validation data. The test set is read once.
        recorded = self._recorded if part == "validation" and self._dataset.is_on_device else None
        compute = partial(self._sums, part)
        sums = recorded.evaluation.sums(compute) if recorded else compute()
        self._evaluated[part] = [means(member, self._dataset, part) for member in sums.T.cpu()]
        return self._evaluated[part]

    def _sums(self, part: str) -> Tensor:
        """Return the sums of the losses and of the correct examples [2, members] float64."""
        # Sums of ten thousand float32 losses would lose digits that a table shows.
        loss = torch.zeros(self._count, dtype=torch.float64, device=self._flat.device)
        correct = torch.zeros(self._count, dtype=torch.float64, device=self._flat.device)
        for inputs, labels in self._dataset.batches(part):
            x = inputs.flatten(1).expand(self._count, -1, -1)
            for weight, bias in zip(self._weights, self._biases, strict=True):
                out = empty_stack((self._count, len(labels), weight.shape[1]), x.device)
                # The ReLU of a layer is applied as its outputs are read, which saves a buffer.
                x = linear(x if weight is self._weights[0] else x.relu_(), weight, bias, out)
            label = labels[None, :, None].expand(self._count, -1, 1)
            loss -= torch.log_softmax(x, 2).gather(2, label).sum((1, 2))
            correct += (x.argmax(2) == labels).sum(1)
        return torch.stack([loss, correct])

    def values(self, slot: int) -> dict[str, Tensor]:
        """Return a member's parameters now (not copies)."""
        return {name: stack[slot] for name, stack in self._stacks.items()}

    def optimizer_state(self, slot: int) -> dict[str, Tensor]:
        """Return a member's optimizer state as `checkpoint.optimizer_tensors` does."""
        tensors: dict[str, Tensor] = {}
        # It is split up, so that any kernel can continue a checkpoint of a member.
        for name, value in self._optimizer.state[self._flat].items():
            if not isinstance(value, torch.Tensor):
                continue
            # A tensor without dimensions, such as a count of steps, is the group's.
            by_parameter = [value] * len(self._shapes)
            if value.dim():
                by_parameter = [stack[slot] for stack in self._split(value).values()]
            for index, tensor in enumerate(by_parameter):
                tensors[f"{index}.{name}"] = tensor.clone()
        return tensors

    def restore(
        self, slot: int, state: NetworkState, optimizer_state: Mapping[str, Tensor]
    ) -> None:
        """Put one member back to a state that it gave.

        All members must be put back to the same step.
        """
        for name, value in self.values(slot).items():
            value.copy_(state.values[name])
        self.load_optimizer_state(slot, optimizer_state)
        self._evaluated.clear()
        if self._recorded is not None:
            self._recorded.forget()

    def load_optimizer_state(self, slot: int, tensors: Mapping[str, Tensor]) -> None:
        """Put one member's optimizer state back; counts of steps are the group's."""
        state, names = self._optimizer.state[self._flat], list(self._shapes)
        # torch's plain optimizers count steps on the CPU: elsewhere each step would wait for the
        # count.
        on_device = self._options.get("fused") or self._options.get("capturable")
        counts_device = self._flat.device if on_device else "cpu"
        for label, tensor in tensors.items():
            index, _, name = label.partition(".")
            if tensor.dim():
                flat = state.setdefault(name, self._flat.new_zeros(self._flat.shape))
                self._split(flat)[names[int(index)]][slot].copy_(tensor)
            else:
                state[name] = tensor.to(counts_device, copy=True)

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        return split(flat, self._shapes, self._count)


class LockstepMember:
    """One network of a group."""

    curve_units: Mapping[str, FigureUnit] = {}

    def __init__(self, group: Group, slot: int):
        self._group = group
        self._slot = slot

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data."""
        return self._group.evaluate(part)[self._slot]

    def curve_figures(self) -> Mapping[str, float]:
        """Return nothing: the curve has losses and accuracies alone."""
        return {}

    def state(self) -> NetworkState:
        """Return every parameter now (not copies)."""
        return NetworkState(self._group.values(self._slot))

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, as tensors."""
        return self._group.optimizer_state(self._slot)

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this member gave."""
        self._group.restore(self._slot, state, optimizer_state)


def _why_not(candidate: Candidate) -> str | None:
    if reason := candidate.why_no_weights() or candidate.why_no_cross_entropy():
        return reason
    if reason := why_no_mlp(candidate):
        return reason
    if reason := why_no_rule(candidate.optimizer) or candidate.why_no_examples_by_index():
        return reason
    # BLAS takes vectors by another routine than matrices, which rounds otherwise: a member of a
    # group would differ from the same training alone.
    if candidate.job.batch == 1:
        return "it takes no batches of one example"
    for path in candidate.network_fact(mlp_layers):
        if 1 in candidate.job.values[f"{path}.weight"].shape:
            return f"'{path}' has a side of one unit"
    return None


def _gain(candidate: Candidate) -> float:
    """Return the gain on a GPU, or of a network whose step on a CPU is mostly overhead."""
    weights = sum(mask.numel() for mask in candidate.job.mask.values())
    return 3.0 if candidate.job.device != "cpu" or weights < SMALL else 0.0


KERNEL = KernelDescription(
    name="lockstep",
    revision=2,
    why_not=_why_not,
    gain=_gain,
    make=Group,
    # On the CPU, sixteen gain most of the possible gain (benchmarks/lockstep.py); on a GPU, 256
    # make 1.2 to 1.5 times as many steps a second as 64 (docs/performance.md).
    group_sizes={"cpu": 16, "cuda": 256},
    member_bytes=member_bytes,
)
