"""The contract of what is trained: models, data, objectives, optimizers, schedules.

`lotteryfw.api.kinds` has the other kinds, and the rules for all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from lotteryfw.api.component import Component
from lotteryfw.api.data import Box, Dataset, DatasetInfo, StreamedDataset
from lotteryfw.api.errors import UsageError
from lotteryfw.api.fingerprints import files_fingerprint
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.steps import Clock

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class AuxiliaryOutputs(NamedTuple):
    """The outputs of a network with auxiliary heads in training; in evaluation it returns `main`."""

    main: Tensor
    """[n, classes]."""
    auxiliary: tuple[Tensor, ...]
    """[n, classes] each."""
    weight: float
    """Multiplies the loss of each auxiliary head."""


class ModelFamily(Component):
    """Builds an ordinary `nn.Module` and names its prunable parameters."""

    kind = "model"

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return a network for inputs of `shape` (no batch dimension) with outputs [n, classes].

        The outputs are logits; `classes` is the objective's `output_size`. In training a network
        may return `AuxiliaryOutputs` instead.
        """

    def build_for(self, info: DatasetInfo, outputs: int) -> nn.Module:
        """Return a network for such data. Default: `build`, for inputs that are numbers.

        Raises UsageError for data that it cannot read.
        """
        if info.vocabulary:
            raise UsageError(f"model '{self.use}' reads numbers, and the inputs are tokens")
        return self.build(info.shape, outputs)

    def fixed_outputs(self, shape: tuple[int, ...]) -> int | None:
        """Return the number of outputs of a network that is made for one objective.

        `build` refuses another number. Default: None, it builds networks of any number.
        """
        return None

    def prunable(self, module: nn.Module) -> list[str]:
        """Return the paths of the prunable parameters in order, the output layer's last.

        Default: Linear and Conv weights, and of one that several layers share the first path.
        """
        from torch import nn

        prunable = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        # torch lists a tied parameter once, under its first path; pruning it twice would count it twice.
        first_names = dict(module.named_parameters())
        all_names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        shared = set(all_names) - first_names.keys()
        layers = [path for path, part in module.named_modules() if isinstance(part, prunable)]
        # A family may return a single Linear layer, whose path is empty.
        names = [f"{path}.weight" if path else "weight" for path in layers]
        return [name for name in names if name not in shared]


class TextModelFamily(ModelFamily):
    """Builds a network that reads tokens: int64 inputs in 0 … vocabulary - 1."""

    @abstractmethod
    def build_text(self, shape: tuple[int, ...], vocabulary: int, classes: int) -> nn.Module:
        """Return a network for int64 inputs [n, *shape] with outputs [n, classes]."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Raise UsageError: there are no tokens."""
        raise UsageError(f"model '{self.use}' reads tokens, and the inputs are numbers")

    def build_for(self, info: DatasetInfo, outputs: int) -> nn.Module:
        """Return the network of `build_text`."""
        # The message of `build` says what is wrong.
        if not info.vocabulary:
            return self.build(info.shape, outputs)
        return self.build_text(info.shape, info.vocabulary, outputs)


class Initialiser(Component):
    """Draws the first values of Linear and Conv layers."""

    kind = "initialiser"

    @abstractmethod
    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """Return [s] float32: a fresh draw of the layer's weights from `rng` alone."""

    def bias(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """Return [shape[0]] float32: the layer's biases. Default: zeros."""
        import torch

        return torch.zeros(layer.shape[0])


class DataSource(Component):
    """Gives train, validation and test examples: as whole tensors, or read when they are needed."""

    kind = "data"

    @abstractmethod
    def facts(self, folder: Path) -> DatasetInfo:
        """Return shapes and sizes, without reading the examples.

        Raises DataError where they cannot be known.
        """

    @abstractmethod
    def load(self, folder: Path) -> Dataset | StreamedDataset:
        """Return the examples, from below `folder`.

        Raises DataError that names the place that they were looked for in.
        """

    def check(self, folder: Path) -> Sequence[str]:
        """Look at the files before anything is trained, and return warnings. Default: none.

        Raises DataError for files that cannot be read.
        """
        return ()

    def files(self, folder: Path) -> Sequence[Path]:
        """Return the files that `load` reads, present or not. Default: none."""
        return ()

    def fingerprint(self, folder: Path) -> str:
        """Return a text that differs between states of the data where the options do not.

        It is part of the key of every job. Default: a hash of the names and contents of
        `files(folder)` (see `files_fingerprint`), "" where it names none.
        """
        # Without files the options alone decide the data.
        files = self.files(folder)
        return files_fingerprint(files) if files else ""

    def fetch(self, folder: Path) -> None:
        """Download the files that `load` reads, if there are any. Raises DataError."""


class Augmentation(Component):
    """Changes training images at random, a batch at a time."""

    kind = "augmentation"

    @abstractmethod
    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return [n, c, h, w] float32: changed images of the same shape.

        `rng` is on the CPU and belongs to this job and step.
        """

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> dict[str, Tensor] | None:
        """Return all random numbers of one batch of images of `shape` [n, c, h, w], on the CPU.

        Their names are free, and their shapes depend on `shape` alone. With this method and
        `transform`, a training on a GPU draws for many steps at once and does not wait for copies.
        Default: None, it calls `apply`.
        """
        return None

    def transform(self, images: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Return the images of `apply` for the numbers of `noise`, on the images' device."""
        raise NotImplementedError

    def box(self, height: int, width: int, rng: torch.Generator) -> Box | None:
        """Return the part of an image of this size to cut out and resize, as it is read.

        With this method, streamed images are cropped at their full resolution, and `apply` is not
        called for them. `rng` belongs to one example and epoch. Default: None, it does not crop.
        """
        return None


class Objective(Component):
    """Says what a training makes small, and what is reported of it."""

    kind = "objective"
    labels_are_classes: ClassVar[bool] = True
    """True for one that reads labels as numbers of classes.

    Data with labels outside 0 … classes - 1 is refused then. Set it to False for one that does not
    read them, or reads them as something else."""
    needs_teacher: ClassVar[bool] = False
    """True for one that compares a network with a teacher (see `taught_loss`).

    The teacher is the network that the dense training of the same cell ended with. The dense
    training itself has none, and is made by `loss`."""
    figure_name: ClassVar[str] = "accuracy"
    """The name of the mean of `correct`, in words: reports and progress show "test accuracy".

    The columns of levels.csv, such as `test_accuracy`, have the same names for every objective."""

    def why_not(self, info: DatasetInfo) -> str | None:
        """Return why it cannot read the labels of such data, as a clause.

        Default: None, it can; for labels that are classes only if each example has one.
        """
        # Cross-entropy over several labels of an example is another objective.
        if self.labels_are_classes and info.label_shape:
            return f"it reads one class for each example, and labels have shape {info.label_shape}"
        return None

    def output_size(self, shape: tuple[int, ...], classes: int) -> int:
        """Return the number of outputs that the network has for an input of `shape`.

        Default: one for each class.
        """
        return classes

    @abstractmethod
    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        """Return 0-d float32, differentiable: the mean, or the sum, over the examples of a batch.

        `outputs` [n, k], `inputs` [n, *shape] float32, `labels` [n] int64, or inputs and labels as
        the data set has them.
        """

    def taught_loss(
        self, outputs: Tensor, teacher: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Return 0-d float32, differentiable: the mean loss of a step that has a teacher.

        `teacher` [n, k] are its outputs for the same inputs, in the evaluation mode and without a
        gradient. Evaluations measure `loss`. Default: `loss` itself.
        """
        return self.loss(outputs, inputs, labels, "mean")

    def penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Return 0-d float32, differentiable: what is added to the loss of a step, not reported.

        `weights` [s] by layer are the prunable weights that the network computes with. Default:
        None, nothing.
        """
        return None

    @abstractmethod
    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return [n] bool, or float in [0, 1]: the degree to which each example is correct.

        Its mean is reported under the name `figure_name`, in per cent.
        """

    def closed_form(self) -> str:
        """Return the name of the loss, if it is one that kernels may have built in. Default: "".

        "cross_entropy": `loss` is the plain cross-entropy of logits and labels, and `correct` is
        True where the largest logit is the label's.
        """
        return ""


class Metric(Component):
    """Measures a network over a part of the data, beside the objective's loss and accuracy."""

    kind = "metric"
    unit: ClassVar[FigureUnit] = "share"
    """The unit of the result: reports show a "share", of which 1 is all there is, in per cent."""
    needs_classes: ClassVar[bool] = True
    """True for one that reads outputs as logits of classes and labels as numbers of classes.

    It is refused beside an objective that does not."""

    def name(self) -> str:
        """Return the name of the figure, of lower-case letters, digits and _. Default: `use`.

        It must differ between options with which the metric is wanted twice.
        """
        return self.use

    def why_not(self, classes: int) -> str | None:
        """Return why it cannot measure networks of so many classes, as a clause.

        Default: None, it can.
        """
        return None

    @abstractmethod
    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return [n, …], on the device of `outputs`: what the result needs of each example.

        `outputs` [n, k], `inputs` [n, *shape] float32, `labels` [n] int64. The method must not
        wait for the device, as `.item()` does.
        """

    @abstractmethod
    def result(self, values: Tensor) -> float:
        """Return the figure.

        `values` [examples, …], on the CPU, are those of `per_example` over the whole part, in the
        order of the data.
        """


class Optimizer(Component):
    """Builds the optimizer of a training."""

    kind = "optimizer"

    @abstractmethod
    def build(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        """Return a fresh optimizer over the values of `parameters`.

        They are the network's parameters by name, in order; where a mask is learned, the scores
        by layer. Several groups, such as one without weight decay, are trained by kernels that
        call the optimizer itself. The schedule's factor multiplies all learning rates.
        """


class Schedule(Component):
    """Multiplies the learning rate over the steps of a training."""

    kind = "schedule"

    @abstractmethod
    def factor(self, step: int, clock: Clock) -> float:
        """Return the factor for the update from `step` to `step + 1`, `step` in [0, clock.total)."""
