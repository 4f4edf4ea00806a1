"""The engine's side of a probe: one network on the device, and whole-network scores from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from lotteryfw.api.errors import UsageError
from lotteryfw.api.kinds import AuxiliaryOutputs, Objective
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.probe import Part
from lotteryfw.api.rng import Label, Stream, stream
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.training_loss import training_loss


class NetworkProbe:
    """A `Probe` over a module, its tensors on the device, and the data set of a job."""

    def __init__(
        self,
        module: torch.nn.Module,
        tensors: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        layers: tuple[LayerInfo, ...],
        data: DeviceDataset,
        objective: Objective,
        stream_labels: tuple[Label, ...],
    ):
        """`stream_labels` name the stream of the component: every draw adds its own purpose."""
        self._module = module
        self.tensors: Mapping[str, Tensor] = {
            name: value.detach() for name, value in tensors.items()
        }
        self.masks = masks
        self.layers = layers
        self._data = data
        self._objective = objective
        self._stream_labels = stream_labels
        self.input_shape = tuple(data.shape)
        self.classes = data.classes

    @property
    def weights(self) -> dict[str, Tensor]:
        """By layer, float32 [s]: the prunable weights."""
        return {layer.name: self.tensors[layer.name] for layer in self.layers}

    @cached_property
    def rng(self) -> torch.Generator:
        """The component's own stream, on the CPU."""
        return stream(*self._stream_labels, Stream.PROBE)

    def forward(
        self,
        inputs: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        mode: Literal["train", "eval"] = "train",
    ) -> Tensor:
        """Return the outputs for inputs, with some parameters and buffers replaced.

        Of a network with auxiliary heads those of the main one.
        """
        outputs = self._computed(inputs, tensors, mode)
        return outputs.main if isinstance(outputs, AuxiliaryOutputs) else outputs

    def _computed(
        self,
        inputs: Tensor,
        tensors: Mapping[str, Tensor] | None,
        mode: Literal["train", "eval"],
    ) -> Tensor | AuxiliaryOutputs:
        replaced = dict(tensors or {})
        unknown = sorted(replaced.keys() - self.tensors.keys())
        if unknown:
            raise UsageError(f"the network has no parameter or buffer called {unknown[0]!r}")
        self._module.train(mode == "train")
        used = {**self.tensors, **replaced}
        # Batch normalisation updates its statistics in place in the training mode: on copies.
        buffers = {name for name, _ in self._module.named_buffers()}
        for name in buffers & used.keys() - replaced.keys():
            used[name] = used[name].clone()
        outputs: Tensor | AuxiliaryOutputs = functional_call(self._module, used, (inputs,))
        return outputs

    def loss(
        self,
        inputs: Tensor,
        labels: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        mode: Literal["train", "eval"] = "train",
        temperature: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> Tensor:
        """Return the loss of the objective over a batch."""
        outputs = self._computed(inputs, tensors, mode)
        return training_loss(
            lambda head: self._objective.loss(head / temperature, inputs, labels, reduction),
            outputs,
        )

    def batches(self, part: Part, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `count` batches of `size` examples in a seeded order."""
        examples = self.examples(part)
        if count * size > examples:
            raise UsageError(
                f"{count} batches of {size} examples were asked for; "
                f"the {part} part has {examples} examples"
            )
        # Drawn on the CPU, so that every device gets the same batches.
        order = torch.randperm(
            examples, generator=stream(*self._stream_labels, Stream.PROBE_BATCHES, part)
        )
        for start in range(0, count * size, size):
            yield self._data.examples_at(part, order[start : start + size])

    def all_batches(self, part: Part, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every example of a part once, in the order of the data set."""
        yield from self._data.batches(part, size)

    def examples(self, part: Part) -> int:
        """Return the number of examples of a part."""
        return len(self._data.labels(part))

    def ones(self, count: int) -> Tensor:
        """Return inputs that are all 1. Raises UsageError for data of tokens."""
        if self._data.info.vocabulary:
            raise UsageError("there are no inputs of ones among tokens, which are names of words")
        device = next(iter(self.tensors.values())).device
        return torch.ones((count, *self.input_shape), device=device)
