"""The trials of what a training is made of: model, initialiser, data, augmentation, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.api.errors import ContractError, DataError, LotteryError, PluginError
from lotteryfw.api.kinds import Augmentation, DataSource
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import seed_of, stream
from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.engine.workshop import load, wrong_label
from lotteryfw.runner import default_data_folder
from lotteryfw.search.jobs import tensors_digest
from lotteryfw.testkit.fixtures import CLOCKS, LAYERS
from lotteryfw.testkit.subject import Skipped, Subject

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHAPES = ((1, 28, 28), (3, 32, 32))
"""Of the images to try: MNIST's and CIFAR's."""
CLASSES = 7
BATCH = 4


def try_model(subject: Subject) -> None:
    """It builds a module that works as the engine runs it: through `functional_call`, in both modes."""
    import torch

    def attempt(shape: tuple[int, ...]) -> None:
        module, twin = _build(subject, shape), _build(subject, shape)
        same = tensors_digest(module.state_dict()) == tensors_digest(twin.state_dict())
        subject.demand(
            same,
            f"build() for {list(shape)} gave two networks under one seed of torch's global stream",
        )
        with torch.random.fork_rng(devices=[]):
            _try_calls(subject, module, _prunable(subject, module), shape)

    _for_images(subject, attempt)


def _for_images(subject: Subject, attempt: Callable[[tuple[int, ...]], None]) -> None:
    """Makes the attempt on images of every shape; a component may refuse some of them, not all."""
    refused = []
    for shape in SHAPES:
        try:
            attempt(shape)
        except PluginError:
            raise
        except LotteryError as error:
            refused.append(str(error))
    subject.demand(len(refused) < len(SHAPES), f"it takes no images at all: {'; '.join(refused)}")


def _build(subject: Subject, shape: tuple[int, ...]) -> nn.Module:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("testkit", "build"))
        module = subject.ask("build", shape, CLASSES, on=f"inputs {list(shape)}", seeded=True)
    subject.demand(
        isinstance(module, nn.Module),
        f"build() returned {type(module).__name__}, not a torch.nn.Module",
    )
    return cast("nn.Module", module)


def _prunable(subject: Subject, module: nn.Module) -> list[str]:
    names = list(subject.ask("prunable", module, on="the network it built"))
    parameters = dict(module.named_parameters())
    unknown = [name for name in names if name not in parameters]
    subject.demand(bool(names), "prunable() names no parameter")
    subject.demand(
        not unknown, f"prunable() names no parameter of the network: {', '.join(map(str, unknown))}"
    )
    subject.demand(len(set(names)) == len(names), "prunable() names a parameter twice")
    outputs = parameters[names[-1]].shape[0]
    subject.demand(
        outputs == CLASSES,
        f"prunable() ends with {names[-1]}, which has {outputs} outputs for {CLASSES} classes; the output layer's "
        "weights come last",
    )
    return names


def _try_calls(
    subject: Subject, module: nn.Module, names: list[str], shape: tuple[int, ...]
) -> None:
    import torch
    from torch.func import functional_call

    inputs = torch.rand(BATCH, *shape, generator=stream("testkit", "inputs"))
    values = {name: value.detach().clone() for name, value in module.state_dict().items()}
    layers = [values[name].requires_grad_() for name in names]

    def call(mode: str) -> Tensor:
        try:
            logits: Tensor = functional_call(module.train(mode == "training"), values, (inputs,))
        except Exception as error:
            subject.demand(
                False, f"the network broke in {mode} mode: {type(error).__name__}: {error}"
            )
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        subject.demand(
            found == [BATCH, CLASSES],
            f"the network returned {found} for inputs [{BATCH}, {', '.join(map(str, shape))}], not logits "
            f"[{BATCH}, {CLASSES}]",
        )
        return logits

    slopes = torch.autograd.grad(call("training").sum(), layers, allow_unused=True)
    unused = [name for name, slope in zip(names, slopes, strict=True) if slope is None]
    subject.demand(
        not unused,
        f"the network's output does not depend on {', '.join(unused)}, which prunable() names",
    )
    subject.demand(
        torch.equal(call("evaluation"), call("evaluation")),
        "in evaluation mode it gave two results",
    )


def try_initialiser(subject: Subject) -> None:
    """Weights and biases have the layer's shape, are float32 and depend on the stream alone."""
    for layer in LAYERS:
        for method, shape in (("weight", layer.shape), ("bias", layer.shape[:1])):
            subject.demand_tensor(method, partial(_drawing, layer), shape, layer.name)


def _drawing(layer: LayerInfo) -> tuple[LayerInfo, torch.Generator]:
    return layer, stream("testkit", layer.name)


def _draws_apart(augmentation: Augmentation, shape: tuple[int, ...]) -> bool:
    """Return whether it has a `noise`, which is optional. The trial asks again where it breaks."""
    try:
        augmentation.noise(shape, stream("testkit", "augmentation"))
    except NotImplementedError:
        return False
    except Exception:
        return True
    return True


def try_augmentation(subject: Subject) -> None:
    """Images keep their shape and type, and depend on the stream alone; `noise` and `transform`, where it has them, do
    together what `apply` does."""
    import torch

    def attempt(shape: tuple[int, ...]) -> None:
        def given() -> tuple[Tensor, torch.Generator]:
            return torch.rand(BATCH, *shape, generator=stream("testkit", "images")), stream(
                "testkit", "augmentation"
            )

        subject.demand_tensor("apply", given, (BATCH, *shape), f"images {[BATCH, *shape]}")
        if _draws_apart(cast(Augmentation, subject.component), (BATCH, *shape)):
            on = f"images {[BATCH, *shape]}"
            applied = subject.ask("apply", *given(), on=on)
            images, rng = given()
            transformed = subject.ask(
                "transform", images, subject.ask("noise", (BATCH, *shape), rng, on=on), on=on
            )
            equal = torch.equal(transformed, applied)
            subject.demand(
                equal, f"noise() and transform() on {on} do not do together what apply() does"
            )

    _for_images(subject, attempt)


def try_data(subject: Subject) -> None:
    """What it loads is what its facts say, the same each time. Raises Skipped where the files are not here."""
    folder = default_data_folder()
    on = "the data folder"
    try:
        facts, splits = subject.ask("facts", folder, on=on), subject.ask("load", folder, on=on)
    except DataError as error:
        raise Skipped(str(error)) from None
    subject.demand(
        isinstance(facts, DatasetInfo), f"facts() returned {type(facts).__name__}, not DatasetInfo"
    )
    subject.demand(
        isinstance(splits, Dataset), f"load() returned {type(splits).__name__}, not Dataset"
    )
    try:
        again = load(cast(DataSource, subject.component), folder)
    except DataError as error:  # the files are here: what they hold cannot be trained on
        raise ContractError(str(error)) from None
    subject.demand(facts == subject.ask("facts", folder, on=on), "facts() gave two results")
    subject.demand(_content(splits) == _content(again), "load() gave two results")
    _try_fingerprint(subject, folder, on)
    if wrong := wrong_label(subject.component.use, facts.classes, splits):
        raise ContractError(wrong)
    for part in ("validation", "test"):
        _try_apart(subject, splits.train, part, getattr(splits, part))


def _try_fingerprint(subject: Subject, folder: Path, on: str) -> None:
    files = subject.ask("files", folder, on=on)
    absent = [str(path) for path in files if not Path(path).is_file()]
    subject.demand(
        not absent, f"files() names what is not there, though load() works: {', '.join(absent[:3])}"
    )
    fingerprints = [subject.ask("fingerprint", folder, on=on) for _ in range(2)]
    subject.demand(
        type(fingerprints[0]) is str, f"fingerprint() returned {fingerprints[0]!r}, not text"
    )
    subject.demand(fingerprints[0] == fingerprints[1], "fingerprint() gave two results")
    subject.demand(
        not files or fingerprints[0] != "", "files() names files, but fingerprint() is empty"
    )


def _content(splits: Dataset) -> str:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return tensors_digest({name: part.inputs for name, part in parts.items()}) + tensors_digest(
        {name: part.labels for name, part in parts.items()}
    )


def _try_apart(subject: Subject, train: Subset, part: str, split: Subset) -> None:
    """No part is taken from the training examples. Sets hold a few equal examples, so more than half must differ."""
    known = {row.tobytes() for row in train.inputs.numpy()}
    shared = sum(row.tobytes() in known for row in split.inputs.numpy())
    if len(known) > len(train.labels) / 2:  # else examples repeat so much that this tells nothing
        subject.demand(
            shared <= len(split.labels) / 2,
            f"load() has {shared} of {len(split.labels)} {part} examples in train, too; parts are disjoint",
        )


def try_optimizer(subject: Subject) -> None:
    """It moves parameters by its learning rate, and all that it remembers can be saved."""
    import torch

    start = {
        "weight": torch.randn(5, 4, generator=stream("testkit", "weight")),
        "bias": torch.randn(5, generator=stream("testkit", "bias")),
    }
    trained = _Stepped(subject, start)
    trained.step()
    trained.step()
    moved = any(not torch.equal(value, start[name]) for name, value in trained.values.items())
    subject.demand(moved, "the optimizer of build() left every parameter where it was")
    finite = all(bool(torch.isfinite(value).all()) for value in trained.values.values())
    subject.demand(
        finite, "the optimizer of build() made parameters NaN or infinite on a small, smooth loss"
    )
    resumed = _Stepped(subject, trained.values)
    load_optimizer(resumed.optimizer, optimizer_tensors(trained.optimizer))
    trained.step()
    resumed.step()
    same = all(torch.equal(value, resumed.values[name]) for name, value in trained.values.items())
    subject.demand(
        same,
        "a saved and restored optimizer takes another step: keep all that changes in its `state`",
    )
    before = {name: value.clone() for name, value in trained.values.items()}
    for group in trained.optimizer.param_groups:
        group["lr"] = 0.0
    trained.step()
    still = all(torch.equal(value, before[name]) for name, value in trained.values.items())
    subject.demand(
        still, "with lr = 0 the optimizer still moves parameters: the schedule cannot slow it down"
    )


class _Stepped:
    """Parameters that start at copies of `start`, with a fresh optimizer, on the loss half their squares' sum."""

    def __init__(self, subject: Subject, start: dict[str, Tensor]):
        import torch

        self.values = {
            name: value.detach().clone().requires_grad_() for name, value in start.items()
        }
        self.optimizer: torch.optim.Optimizer = subject.ask(
            "build", iter(self.values.values()), on="two parameters"
        )
        made = isinstance(self.optimizer, torch.optim.Optimizer)
        subject.demand(
            made, f"build() returned {type(self.optimizer).__name__}, not a torch.optim.Optimizer"
        )
        groups = self.optimizer.param_groups
        held = sorted(id(value) for group in groups for value in group["params"])
        own = sorted(map(id, self.values.values()))
        subject.demand(
            held == own, "build() does not hold each of the parameters it is given, once"
        )
        rates = all(isinstance(group.get("lr"), float | int) for group in groups)
        subject.demand(
            rates,
            "build() has a parameter group whose `lr` is no number for the schedule to multiply",
        )

    def step(self) -> None:
        for value in self.values.values():
            value.grad = value.detach().clone()
        self.optimizer.step()


def try_schedule(subject: Subject) -> None:
    """Factors are finite and not negative over the whole training, and depend on the step and the clock alone."""
    for clock in CLOCKS:
        on = f"a training of {clock.total} steps"
        steps = [*range(0, clock.total, clock.total // 100), clock.total - 1]
        factors: dict[int, Any] = {
            step: subject.ask("factor", step, clock, on=on) for step in steps
        }
        for step, factor in factors.items():
            good = isinstance(factor, float | int) and isfinite(factor) and factor >= 0
            subject.demand(
                good,
                f"factor() on {on} is {factor!r} at step {step}; a finite number ≥ 0 is needed",
            )
        for step in reversed(steps):
            again = subject.ask("factor", step, clock, on=on)
            subject.demand(
                again == factors[step], f"factor() on {on} gave two results for step {step}"
            )
        subject.demand(any(factors.values()), f"factor() on {on} is 0 at every step")
