"""Trials for the parts of a training: model, initialiser, data, optimizer, and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from lotteryfw.api.data import Box, DatasetInfo
from lotteryfw.api.errors import LotteryError, PluginError
from lotteryfw.api.kinds import Augmentation, AuxiliaryOutputs, TextModelFamily
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import seed_of, stream
from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.search.jobs import tensors_digest
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fixtures import CLOCKS, LAYERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHAPES = ((1, 28, 28), (3, 32, 32))
"""Shapes of the images that models are tried with: MNIST's and CIFAR's."""
PHOTOGRAPHS = ((3, 375, 500), (3, 500, 333))
"""Shapes of photographs that boxes are cut out of."""
TABLE_SHAPE = (30,)
"""The row of a table that models are tried with if they refuse images."""
TEXT_SHAPES = ((12,), (5,))
VOCABULARY = 30
CLASSES = 7
BATCH = 4


def try_model(trial: ComponentTrial) -> None:
    """Require a module that works as the engine calls it: by `functional_call`, in both modes."""
    import torch

    def attempt(shape: tuple[int, ...]) -> None:
        module = _build(trial, shape)
        twin = _build(trial, shape)
        trial.require(
            tensors_digest(module.state_dict()) == tensors_digest(twin.state_dict()),
            f"build() for {list(shape)} gave two networks under one seed of torch's global stream",
        )
        # dropout draws from the global stream
        with torch.random.fork_rng(devices=[]):
            _try_calls(trial, module, _prunable(trial, module, shape), shape)

    if isinstance(trial.component, TextModelFamily):
        for shape in TEXT_SHAPES:
            attempt(shape)
        return
    refusals = _refusals(attempt, SHAPES)
    if len(refusals) == len(SHAPES):
        refusals += _refusals(attempt, [TABLE_SHAPE])
    trial.require(
        len(refusals) <= len(SHAPES),
        f"it takes neither images nor rows of a table: {'; '.join(refusals)}",
    )


def _refusals(
    attempt: Callable[[tuple[int, ...]], None], shapes: Sequence[tuple[int, ...]]
) -> list[str]:
    """Make the attempt on inputs of each shape, and return why the component refused some."""
    refusals = []
    for shape in shapes:
        try:
            attempt(shape)
        except PluginError:
            # a broken promise, not a refusal
            raise
        except LotteryError as error:
            refusals.append(str(error))
    return refusals


def _build(trial: ComponentTrial, shape: tuple[int, ...]) -> nn.Module:
    import torch
    from torch import nn

    # torch's layers draw from the global stream as they are made; the initialiser draws again
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("testkit", "build"))
        vocabulary = VOCABULARY if isinstance(trial.component, TextModelFamily) else 0
        info = DatasetInfo(shape, CLASSES, 1, 1, 1, vocabulary=vocabulary)
        outputs = _outputs(trial, shape)
        module = trial.call("build_for", info, outputs, on=f"inputs {list(shape)}", seeded=True)
    trial.require(
        isinstance(module, nn.Module),
        f"build() returned {type(module).__name__}, not a torch.nn.Module",
    )
    return cast("nn.Module", module)


def _outputs(trial: ComponentTrial, shape: tuple[int, ...]) -> int:
    """Return the number of outputs that networks are tried with."""
    fixed = trial.call("fixed_outputs", shape, on=f"inputs {list(shape)}")
    is_number = fixed is None or (type(fixed) is int and fixed > 0)
    trial.require(is_number, f"fixed_outputs() returned {fixed!r}, not a number of outputs or None")
    return CLASSES if fixed is None else cast(int, fixed)


def _prunable(trial: ComponentTrial, module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    names = trial.call("prunable", module, on="the network it built")
    trial.require(
        isinstance(names, list | tuple),
        f"prunable() returned {type(names).__name__}, not a list of names",
    )
    parameters = dict(module.named_parameters())
    unknown = [str(name) for name in names if name not in parameters]
    trial.require(bool(names), "prunable() names no parameter")
    trial.require(
        not unknown, f"prunable() names no parameter of the network: {', '.join(unknown)}"
    )
    # twice in the list, a weight would count twice in budgets and densities
    trial.require(len(set(names)) == len(names), "prunable() names a parameter twice")
    # its last outputs need not be those of a layer, as where an image is generated
    if trial.call("fixed_outputs", shape, on=f"inputs {list(shape)}") is not None:
        return list(names)
    # scopes prune the output layer at a rate of its own, and know it by its position
    outputs = parameters[names[-1]].shape[0]
    trial.require(
        outputs == CLASSES,
        f"prunable() ends with {names[-1]}, which has {outputs} outputs for {CLASSES} classes; the "
        "output layer's weights come last",
    )
    return list(names)


def _try_calls(
    trial: ComponentTrial, module: nn.Module, names: list[str], shape: tuple[int, ...]
) -> None:
    import torch
    from torch.func import functional_call

    outputs = _outputs(trial, shape)
    rng = stream("testkit", "inputs")
    if isinstance(trial.component, TextModelFamily):
        inputs = torch.randint(VOCABULARY, (BATCH, *shape), generator=rng)
    else:
        inputs = torch.rand(BATCH, *shape, generator=rng)
    # of a tied parameter only the first name, as the engine has it
    values = {}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        values[name] = value.detach().clone()
    weights = [values[name].requires_grad_() for name in names]

    # batch norm and dropout compute in other ways in each of the two modes
    def call(mode: str) -> tuple[Tensor, ...]:
        """Return the outputs of the network, those of its auxiliary heads last."""
        try:
            result = functional_call(module.train(mode == "training"), values, (inputs,))
        except Exception as error:
            trial.require(
                False, f"the network broke in {mode} mode: {type(error).__name__}: {error}"
            )
        heads: tuple[Any, ...] = (result,)
        if mode == "training" and isinstance(result, AuxiliaryOutputs):
            heads = (result.main, *result.auxiliary)
        for logits in heads:
            is_tensor = isinstance(logits, torch.Tensor)
            size = list(logits.shape) if is_tensor else type(logits).__name__
            trial.require(
                size == [BATCH, outputs],
                f"the network returned {size} for inputs {[BATCH, *shape]}, not logits "
                f"{[BATCH, outputs]}",
            )
        return heads

    total = torch.stack(call("training")).sum()
    trial.require(total.requires_grad, "the network's output has no gradient")
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    # the gradient of such a weight is None, which no criterion can score
    trial.require(
        not unused,
        f"the network's output does not depend on {', '.join(unused)}, which prunable() names",
    )
    trial.require(
        torch.equal(*call("evaluation"), *call("evaluation")),
        "in evaluation mode it gave two results",
    )


def try_initialiser(trial: ComponentTrial) -> None:
    """Require float32 weights and biases of the layer's shape that depend on the stream alone."""
    for layer in LAYERS:
        arguments = partial(_draw_arguments, layer)
        trial.require_tensor("weight", arguments, layer.shape, layer.name)
        trial.require_tensor("bias", arguments, layer.shape[:1], layer.name)


def _draw_arguments(layer: LayerInfo) -> tuple[LayerInfo, torch.Generator]:
    return layer, stream("testkit", layer.name)


def _has_noise(augmentation: Augmentation, shape: tuple[int, ...]) -> bool:
    """Return whether it has a `noise`, which is optional. The trial asks again where it breaks."""
    try:
        return augmentation.noise(shape, stream("testkit", "augmentation")) is not None
    except Exception:
        return True


def try_augmentation(trial: ComponentTrial) -> None:
    """Require images of the same shape and type that depend on the stream alone.

    Where there are `noise` and `transform`, they must do together what `apply` does.
    """
    import torch

    def attempt(shape: tuple[int, ...]) -> None:
        def arguments() -> tuple[Tensor, torch.Generator]:
            images = torch.rand(BATCH, *shape, generator=stream("testkit", "images"))
            return images, stream("testkit", "augmentation")

        on = f"images {[BATCH, *shape]}"
        trial.require_tensor("apply", arguments, (BATCH, *shape), on)
        if not _has_noise(cast(Augmentation, trial.component), (BATCH, *shape)):
            return
        applied = trial.call("apply", *arguments(), on=on)
        images, rng = arguments()
        noise = trial.call("noise", (BATCH, *shape), rng, on=on)
        transformed = trial.call("transform", images, noise, on=on)
        trial.require(
            torch.equal(transformed, applied),
            f"noise() and transform() on {on} do not do together what apply() does",
        )

    refusals = _refusals(attempt, SHAPES)
    trial.require(len(refusals) < len(SHAPES), f"it takes no images at all: {'; '.join(refusals)}")
    _refusals(partial(_try_box, trial), [*SHAPES, *PHOTOGRAPHS])


def _try_box(trial: ComponentTrial, shape: tuple[int, ...]) -> None:
    """Require that `box` lies inside the image and depends on the stream alone, or is None."""
    height, width = shape[1:]
    on = f"an image of {height} × {width} pixels"
    boxes = []
    for _ in range(2):
        rng = stream("testkit", "box")
        boxes.append(trial.call("box", height, width, rng, on=on))
    box, again = boxes
    call = f"box() on {on}"
    trial.require(box == again, f"{call} gave two results for equal streams")
    if box is None:
        return
    trial.require(isinstance(box, Box), f"{call} returned {box!r}, not a Box or None")
    are_pixels = all(type(number) is int for number in box)
    is_within = box.top >= 0 and box.left >= 0 and box.height > 0 and box.width > 0
    is_within = is_within and box.top + box.height <= height and box.left + box.width <= width
    trial.require(are_pixels and is_within, f"{call} is {box}, which lies not inside the image")


def try_optimizer(trial: ComponentTrial) -> None:
    """Require finite steps, none where the learning rate is 0, and a state that can be saved."""
    import torch

    start = {
        "weight": torch.randn(5, 4, generator=stream("testkit", "weight")),
        "bias": torch.randn(5, generator=stream("testkit", "bias")),
    }
    training = _SmallTraining(trial, start)
    training.step()
    training.step()
    trial.require(
        not training.is_at(start), "the optimizer of build() left every parameter where it was"
    )
    is_finite = all(bool(torch.isfinite(value).all()) for value in training.values.values())
    trial.require(
        is_finite,
        "the optimizer of build() made parameters NaN or infinite on a small, smooth loss",
    )

    # a checkpoint holds what is in the optimizer's `state`, and nothing else
    resumed = _SmallTraining(trial, training.values)
    load_optimizer(resumed.optimizer, optimizer_tensors(training.optimizer))
    training.step()
    resumed.step()
    trial.require(
        training.is_at(resumed.values),
        "a saved and restored optimizer takes another step: keep all that changes in its `state`",
    )

    before = {name: value.clone() for name, value in training.values.items()}
    for group in training.optimizer.param_groups:
        group["lr"] = 0.0
    training.step()
    trial.require(
        training.is_at(before),
        "with lr = 0 the optimizer still moves parameters: the schedule cannot slow it down",
    )


class _SmallTraining:
    """Parameters that start at copies of `start`, with a fresh optimizer.

    The loss is half the sum of their squares, so that the gradient is the parameter itself.
    """

    def __init__(self, trial: ComponentTrial, start: dict[str, Tensor]):
        import torch

        self.values: dict[str, Tensor] = {}
        for name, value in start.items():
            self.values[name] = value.detach().clone().requires_grad_()
        self.optimizer: torch.optim.Optimizer = trial.call(
            "build", self.values, on="two parameters"
        )
        trial.require(
            isinstance(self.optimizer, torch.optim.Optimizer),
            f"build() returned {type(self.optimizer).__name__}, not a torch.optim.Optimizer",
        )

        groups = self.optimizer.param_groups
        in_groups: list[int] = []
        for group in groups:
            in_groups += map(id, group["params"])
        trial.require(
            sorted(in_groups) == sorted(map(id, self.values.values())),
            "build() does not hold each of the parameters it is given, once",
        )
        # PyTorch takes a tensor as a rate, too; the schedule multiplies numbers
        for group in groups:
            trial.require(
                isinstance(group.get("lr"), float | int),
                "build() has a parameter group whose `lr` is no number for the schedule to multiply",
            )

    def step(self) -> None:
        for value in self.values.values():
            value.grad = value.detach().clone()
        self.optimizer.step()

    def is_at(self, values: dict[str, Tensor]) -> bool:
        """Return True if every parameter has exactly these values."""
        import torch

        return all(torch.equal(value, values[name]) for name, value in self.values.items())


def try_schedule(trial: ComponentTrial) -> None:
    """Require finite factors ≥ 0 over the training that depend on step and clock alone."""
    for clock in CLOCKS:
        on = f"a training of {clock.total} steps"
        steps = [*range(0, clock.total, clock.total // 100), clock.total - 1]
        factors: dict[int, Any] = {step: trial.call("factor", step, clock, on=on) for step in steps}
        for step, factor in factors.items():
            is_factor = isinstance(factor, float | int) and isfinite(factor) and factor >= 0
            trial.require(
                is_factor,
                f"factor() on {on} is {factor!r} at step {step}; a finite number ≥ 0 is needed",
            )
        # backwards, since a schedule with a memory would give the same in the same order
        for step in reversed(steps):
            again = trial.call("factor", step, clock, on=on)
            trial.require(
                again == factors[step], f"factor() on {on} gave two results for step {step}"
            )
        trial.require(any(factors.values()), f"factor() on {on} is 0 at every step")
