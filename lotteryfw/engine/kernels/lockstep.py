"""The lockstep kernel: chains of one shape trained together, step by step, their weights stacked.

The step of a small network is mostly the cost of asking for it, so a group of sixteen takes one step in little more
time than one of them, and on a GPU far more of them do. The arithmetic is the fused kernel's with batched products.

Who else is in a group changes no bit of a member's result on the CPU, and on a GPU nothing beyond rounding. Everything
but the products works element by element or row by row. A batched product is a product for each member, and BLAS may
round it differently where a matrix starts elsewhere in a cache line (MKL does with AVX-512) or is stored otherwise. So
the matrices of every member start at a multiple of `_ALIGNED` numbers (see `_stack`), and a product is called alike
for one member and for several (see `_calls`). A product with a side of 1, which BLAS takes another way for one member
than for several, is refused (see `why_not`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, NamedTuple

from lotteryfw.engine.ahead import Augmenter
from lotteryfw.engine.kernels.captured import (
    Batches,
    GatheredBatches,
    LearningRates,
    LoadedBatches,
    RecordedUpdates,
    recorder_for,
)
from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.kernels.frozen import Frozen
from lotteryfw.engine.kernels.fused import plain_rate
from lotteryfw.engine.kernels.sparse import optimizer_of, update_of
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Job, Train, digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST = {"cpu": 16, "cuda": 64}
"""Members of a group: on the CPU sixteen gain most of what there is to gain (benchmarks/lockstep.py)."""
SMALL = 65_536
"""Weights below which the CPU gains enough to wait for a group (benchmarks/lockstep.py). A GPU always does."""
_ALIGNED = 16
"""Numbers in a cache line, and in the widest vector."""
_MEMBERS_OWN = ("order_seed", "augment_seed", "snapshots", "origin")


class Alike(NamedTuple):
    """Equal for all jobs that one group may hold, which are `most` at a time."""

    digest: str
    most: int


def together(job: Job) -> Alike | None:
    """What a job has in common with those that it can be advanced together with; None for a job that goes alone."""
    if not isinstance(job, Train) or not job.kernel.startswith("lockstep/"):
        return None
    shared = {name: value for name, value in job.plain().items() if name not in _MEMBERS_OWN}
    state = job.optimizer_state
    counts = (
        None
        if state is None
        else {name: float(value) for name, value in state.items() if not value.dim()}
    )
    return Alike(digest([shared, counts]), _MOST[job.device])


def why_not(job: Train, chain: Sequence[str], shop: Workshop) -> str | None:
    """Why a chain's job is not for this kernel, or None."""
    optimizer = optimizer_of(job, shop)
    if update_of(optimizer) is None:
        return f"it has no {type(optimizer).__name__} with these options"
    if job.batch == 1:
        return "it takes no batches of one example"
    narrow = [path for path in chain if 1 in job.values[f"{path}.weight"].shape]
    return f"'{narrow[0]}' has a side of one unit" if narrow else None


def is_small(job: Train) -> bool:
    """Whether one step is over so soon that a CPU gains much by taking several at once."""
    return sum(mask.numel() for mask in job.mask.values()) < SMALL


class Group:
    """The networks of jobs that go `together`, all at one step. `losses` [members] is for who trains to count in."""

    def __init__(self, jobs: Sequence[Train], shop: Workshop):
        import torch

        self._job = job = jobs[0]
        self._count = len(jobs)
        self._feed = feed = shop.feed_of(job)
        chain = chain_of(shop.network(job.model, feed, job.objective))
        assert not isinstance(chain, str), chain
        names = [
            name
            for path in chain
            for name in (f"{path}.weight", f"{path}.bias")
            if name in job.values
        ]
        self._shapes = {name: job.values[name].shape for name in names}
        size = sum(_room(shape) for shape in self._shapes.values()) * self._count
        self._flat = torch.zeros(size, device=shop.device)
        alive = torch.ones(size, device=shop.device, dtype=torch.bool)
        self._stacks, masks = self._split(self._flat), self._split(alive)
        for slot, member in enumerate(jobs):
            for name in names:
                self._stacks[name][slot].copy_(member.values[name])
            for name, mask in member.mask.items():
                masks[name][slot].copy_(mask)
        self._frozen = Frozen({"": alive}, {"": self._flat})
        self._weights = [self._stacks[f"{path}.weight"] for path in chain]
        self._biases = [self._stacks.get(f"{path}.bias") for path in chain]
        self._optimizer = shop.component(job.optimizer).build([self._flat])
        (self._options,) = self._optimizer.param_groups
        self._base_rate = self._options["lr"]
        self._rate = plain_rate(self._optimizer)
        self._slots: dict[str, Tensor] = {}
        if self._rate is None:
            self._flat.grad = torch.zeros_like(self._flat)
            self._slots = self._split(self._flat.grad)
        draws = [(member.order_seed, member.augment_seed) for member in jobs]
        self._draws = draws[:1] if len(set(draws)) == 1 else draws
        augmentations = [shop.component(spec) for spec in job.augment]
        self._augment = [
            Augmenter(augmentations, seed, shop.device) for _, seed in self._draws if augmentations
        ]
        self._epoch, self._orders = -1, torch.empty(0)
        batch, widths = min(job.batch, feed.examples), [weight.shape[1] for weight in self._weights]
        self._outputs = [_stack((self._count, batch, width), shop.device) for width in widths]
        self._slopes = [_stack((self._count, batch, width), shop.device) for width in widths]
        self._alive = [
            torch.empty(out.shape, dtype=torch.bool, device=shop.device)
            for out in self._outputs[:-1]
        ]
        self._minus = torch.full((self._count, batch, 1), -1.0, device=shop.device)
        self._measured: dict[str, list[tuple[float, float]]] = {}
        self._recorded = self._recorded_updates(shop.device)
        self.losses = torch.zeros(self._count, device=shop.device)
        for slot, member in enumerate(jobs):
            self.load_state(slot, member.optimizer_state or {})

    @property
    def members(self) -> list[Member]:
        """The networks, each as the kernel of its training. The group does not keep them, so that it and its memory on
        the device are let go with the last of them."""
        return [Member(self, slot) for slot in range(self._count)]

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update of every member; each batch's loss [members]."""
        import torch

        self._measured.clear()
        with torch.no_grad():
            if self._recorded is not None:
                return self._recorded.update(step, factor, self._recorded_step)
            inputs, labels = self._batch(step)
            losses = self._forward(inputs, labels)
            self._backward(inputs, factor)
            if self._rate is None:
                self._options["lr"] = self._base_rate * factor
                self._optimizer.step()
            self._frozen.hold()
        return losses

    def _recorded_updates(self, device: str) -> RecordedUpdates | None:
        """The updates from a recording, where the device and the optimizer allow one."""
        import torch

        recorder = recorder_for(self._optimizer, device)
        if recorder is None:
            return None
        job, feed = self._job, self._feed
        batches: Batches
        if self._augment or not feed.is_on_device:
            batches = LoadedBatches(self._loaded)
        else:
            batches = GatheredBatches(
                feed, self._drawn_orders, job.batch, job.steps_per_epoch, device
            )
        rates = LearningRates(self._optimizer, device)
        return RecordedUpdates(recorder, batches, rates, torch.zeros(self._count, device=device))

    def _recorded_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """All that an update does on the device, at the learning rates that lie there."""
        inputs, labels = self._for_all(inputs, labels)
        losses = self._forward(inputs, labels)
        self._backward(inputs)
        if self._rate is None:
            self._optimizer.step()
        self._frozen.hold()
        return losses

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [members, batch, features] and labels [members, batch]: one batch seen by all where seeds agree."""
        return self._for_all(*self._loaded(step))

    def _drawn_orders(self, epoch: int) -> Tensor:
        """The orders [draws, examples] of the examples in an epoch, on the CPU; one where seeds agree."""
        import torch

        return torch.stack([self._feed.drawn_order(epoch, seed) for seed, _ in self._draws])

    def _loaded(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [draws, batch, *shape], augmented, and labels [draws, batch]."""
        import torch

        job, feed = self._job, self._feed
        epoch, place = divmod(step, job.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._orders = epoch, self._drawn_orders(epoch).to(self._flat.device)
        inputs, labels = feed.at(self._orders[:, place * job.batch : (place + 1) * job.batch])
        if self._augment:
            pairs = zip(inputs, self._augment, strict=True)
            inputs = torch.stack([augment(images, step) for images, augment in pairs])
        return inputs, labels

    def _for_all(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `_loaded` gives, as `_batch` does."""
        inputs = _aligned(inputs.flatten(2))
        return inputs.expand(self._count, -1, -1), labels.expand(self._count, -1)

    def _forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Fills the outputs of every layer, and the last layer's slopes: d loss / d logits."""
        import torch

        x = inputs
        for weight, bias, out in zip(self._weights, self._biases, self._outputs, strict=True):
            x = _linear(x, weight, bias, out)
            x = x if out is self._outputs[-1] else x.relu_()
        log_p, picked = torch.log_softmax(x, 2), labels.unsqueeze(2)
        slope = torch.exp(log_p, out=self._slopes[-1])
        slope.scatter_add_(2, picked, self._minus).div_(labels.shape[1])
        return -log_p.gather(2, picked).mean((1, 2))

    def _backward(self, inputs: Tensor, factor: float | None = None) -> None:
        """Each layer's slopes from the next one's, then its gradients, or with plain SGD its update at once: at
        `factor` times the learning rate, or, where that is None, at the one that lies on the device."""
        import torch

        below = [inputs, *self._outputs[:-1]]
        for upper in range(len(below) - 1, 0, -1):
            lower = upper - 1
            _product(self._slopes[upper], self._weights[upper], self._slopes[lower])
            torch.gt(self._outputs[lower], 0.0, out=self._alive[lower])
            self._slopes[lower].mul_(self._alive[lower])
        names = iter(self._shapes)
        for x, slope, weight, bias in zip(
            below, self._slopes, self._weights, self._biases, strict=True
        ):
            if self._rate is not None:
                rate = 1.0 if factor is None else self._rate * factor
                if factor is None and self._recorded is not None:
                    slope.mul_(self._recorded.rates.tensors[0])
                for part in _calls(weight):
                    weight[part].baddbmm_(slope[part].mT, x[part], alpha=-rate)
                if bias is not None:
                    bias.sub_(slope.sum(1), alpha=rate)
            else:
                _product(slope.mT, x, self._slots[next(names)])
                if bias is not None:
                    torch.sum(slope, 1, out=self._slots[next(names)])

    def measure(self, part: str) -> list[tuple[float, float]]:
        """Every member's mean loss and accuracy over a part of the data, computed once for all of them."""
        import torch

        if part in self._measured:
            return self._measured[part]
        loss = torch.zeros(self._count, dtype=torch.float64, device=self._flat.device)
        correct = torch.zeros(self._count, dtype=torch.float64, device=self._flat.device)
        for inputs, labels in self._feed.sweep(part):
            x = inputs.flatten(1).expand(self._count, -1, -1)
            for weight, bias in zip(self._weights, self._biases, strict=True):
                out = _stack((self._count, len(labels), weight.shape[1]), x.device)
                x = _linear(x if weight is self._weights[0] else x.relu_(), weight, bias, out)
            picked = labels[None, :, None].expand(self._count, -1, 1)
            loss -= torch.log_softmax(x, 2).gather(2, picked).sum((1, 2))
            correct += (x.argmax(2) == labels).sum(1)
        totals, counts = torch.stack([loss, correct]).tolist()
        examples = len(self._feed.raw(part)[1])
        pairs = zip(totals, counts, strict=True)
        self._measured[part] = [(total / examples, right / examples) for total, right in pairs]
        return self._measured[part]

    def values(self, slot: int) -> dict[str, Tensor]:
        """A member's parameters now (not copies)."""
        return {name: stack[slot] for name, stack in self._stacks.items()}

    def state(self, slot: int) -> dict[str, Tensor]:
        """A member's optimizer state as `checkpoint.optimizer_tensors` gives it."""
        import torch

        tensors: dict[str, Tensor] = {}
        for name, value in self._optimizer.state[self._flat].items():
            if not isinstance(value, torch.Tensor):
                continue
            own = (
                [stack[slot] for stack in self._split(value).values()]
                if value.dim()
                else [value] * len(self._shapes)
            )
            tensors |= {f"{index}.{name}": tensor.clone() for index, tensor in enumerate(own)}
        return tensors

    def load(self, slot: int, values: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Puts one member back to values and a state that it gave; all members must be put back to the same step."""
        for name, value in self.values(slot).items():
            value.copy_(values[name])
        self.load_state(slot, state)
        self._measured.clear()
        if self._recorded is not None:
            self._recorded.forget()

    def load_state(self, slot: int, tensors: Mapping[str, Tensor]) -> None:
        """Puts one member's optimizer state back; counts of steps are the group's."""
        state, names = self._optimizer.state[self._flat], list(self._shapes)
        # torch's plain optimizers count steps on the CPU: elsewhere each step would wait for the count
        on_device = self._options.get("fused") or self._options.get("capturable")
        counts_home = self._flat.device if on_device else "cpu"
        for label, tensor in tensors.items():
            index, _, name = label.partition(".")
            if tensor.dim():
                flat = state.setdefault(name, self._flat.new_zeros(self._flat.shape))
                self._split(flat)[names[int(index)]][slot].copy_(tensor)
            else:
                state[name] = tensor.to(counts_home, copy=True)

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views [members, *shape] of each parameter's part of a flat tensor."""
        views, start = {}, 0
        for name, shape in self._shapes.items():
            stop = start + _room(shape) * self._count
            views[name] = (
                flat[start:stop].view(self._count, -1)[:, : prod(shape)].view(self._count, *shape)
            )
            start = stop
        return views


class Member:
    """One network of a group, as the kernel of its training. `losses` is its part of the group's, 0-d."""

    def __init__(self, group: Group, slot: int):
        self._group, self._slot = group, slot
        self.losses = group.losses[slot]

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update of a member that is alone in its group; the batch's loss, 0-d, on the device."""
        return self._group.update(step, factor)[self._slot]

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data."""
        return self._group.measure(part)[self._slot]

    def values(self) -> dict[str, Tensor]:
        """Every parameter now (not copies)."""
        return self._group.values(self._slot)

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return self._group.state(self._slot)

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        self._group.load(self._slot, values, optimizer_state)


def alone(job: Train, shop: Workshop) -> Member:
    """A job as the one member of a group."""
    return Group([job], shop).members[0]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Write the outputs [members, n, out] of a layer for x [members, n, in] into `out`, and return it."""
    import torch

    if bias is None:
        return _product(x, weight.mT, out)
    for part in _calls(out):
        torch.baddbmm(bias[part].unsqueeze(1), x[part], weight[part].mT, out=out[part])
    return out


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write every member's product of two matrices into `out`, and return it."""
    import torch

    for part in _calls(out):
        torch.bmm(left[part], right[part], out=out[part])
    return out


def _calls(result: Tensor) -> list[slice]:
    """Return the members of each call of a batched product: all of them at once, or one after another.

    On the CPU, torch hands a batch to BLAS in another way where there are gaps between the results of its members; the
    result of one member never has any. So one member at a time is the call that a group of one makes.
    """
    if result.device.type != "cpu" or result.is_contiguous():
        return [slice(None)]
    return [slice(slot, slot + 1) for slot in range(len(result))]


def _stack(shape: Sequence[int], device: str | torch.device) -> Tensor:
    """Return an uninitialised tensor [members, rows, columns], each member's matrix aligned (see `_room`)."""
    import torch

    members, *own = shape
    return torch.empty(members, _room(own), device=device)[:, : prod(own)].view(*shape)


def _aligned(stack: Tensor) -> Tensor:
    """Return `stack` [members, rows, columns] with each member's matrix aligned, copied where that takes a copy."""
    if len(stack) == 1 or stack[0].numel() % _ALIGNED == 0:
        return stack
    return _stack(stack.shape, stack.device).copy_(stack)


def _room(shape: Sequence[int]) -> int:
    """Numbers that one member's matrix or vector takes up."""
    return ceil(prod(shape) / _ALIGNED) * _ALIGNED
