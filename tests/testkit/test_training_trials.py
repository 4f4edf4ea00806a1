"""The trials of the parts of a training notice each kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.broken import COUNTER, component
from torch import Tensor, nn

from lotteryfw import (
    Augmentation,
    AuxiliaryOutputs,
    Box,
    Clock,
    ContractError,
    DataError,
    Dataset,
    DatasetInfo,
    DataSource,
    Initialiser,
    LayerInfo,
    LotteryError,
    ModelFamily,
    Objective,
    Optimizer,
    Schedule,
    Subset,
    UsageError,
)
from lotteryfw.testkit import Skipped, trial


class Net(nn.Module):
    """A network that is right, with room for faults."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        self.hidden = nn.Linear(shape[0] * shape[1] * shape[2], 5)
        self.output = nn.Linear(5, classes)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x.flatten(1)).relu())


class Sampling(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(1)


class Narrow(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


class Shouting(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no") if self.training else ValueError


HIDDEN_OUTPUT = ["hidden.weight", "output.weight"]


def unseeded(shape: tuple[int, ...], classes: int) -> nn.Module:
    net = Net(shape, classes)
    nn.init.constant_(net.hidden.bias, next(COUNTER))
    return net


MODEL_FAULTS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "not a module": (
        lambda shape, classes: Net,
        HIDDEN_OUTPUT,
        "returned type, not a torch.nn.Module",
    ),
    "names nothing": (Net, [], "names no parameter"),
    "unknown name": (Net, ["hidden.wait"], "names no parameter of the network: hidden.wait"),
    "twice": (Net, ["hidden.weight", *HIDDEN_OUTPUT], "names a parameter twice"),
    "output first": (
        Net,
        HIDDEN_OUTPUT[::-1],
        "ends with hidden.weight, which has 5 outputs for 7 classes",
    ),
    "unused": (Net, ["unused.weight", *HIDDEN_OUTPUT], "does not depend on unused.weight"),
    "wrong logits": (
        Narrow,
        HIDDEN_OUTPUT,
        r"returned \[4, 2\] for inputs \[4, 1, 28, 28\], not logits \[4, 7\]",
    ),
    "raises": (Shouting, HIDDEN_OUTPUT, "the network broke in training mode: RuntimeError: no"),
    "samples": (Sampling, HIDDEN_OUTPUT, "in evaluation mode it gave two results"),
    "unseeded": (unseeded, HIDDEN_OUTPUT, "gave two networks under one seed"),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_broken_model_is_noticed(fault: str) -> None:
    build, names, message = MODEL_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(
            component(
                ModelFamily,
                build=lambda self, s, c: build(s, c),
                prunable=lambda self, module: names,
            )
        )


def test_a_model_may_refuse_some_inputs_but_not_all() -> None:
    def colours_only(self: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
        if shape[0] != 3:
            raise LotteryError("colours only")
        return Net(shape, classes)

    def never(self: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
        raise LotteryError("not today")

    trial(component(ModelFamily, build=colours_only, prunable=lambda self, module: HIDDEN_OUTPUT))
    with pytest.raises(
        ContractError,
        match="takes neither images nor rows of a table: not today; not today; not today",
    ):
        trial(component(ModelFamily, build=never))


class TwoHeads(Net):
    """Has an auxiliary head, which alone its first layer is pruned by."""

    def forward(self, x: Tensor) -> Any:
        hidden = self.hidden(x.flatten(1)).relu()
        main = self.output(hidden.detach())
        return AuxiliaryOutputs(main, (self.output(hidden),), 0.3) if self.training else main


class NarrowHead(TwoHeads):
    def forward(self, x: Tensor) -> Any:
        outputs = super().forward(x)
        if not self.training:
            return outputs
        return AuxiliaryOutputs(outputs.main, (outputs.main[:, :2],), 0.3)


class Tied(Net):
    """Its two hidden layers share their weights."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__(shape, classes)
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x.flatten(1)).relu()
        return self.output(self.second(self.first(hidden).relu()).relu())


def model(build: Callable[..., Any], names: Any = HIDDEN_OUTPUT) -> type[ModelFamily]:
    return component(
        ModelFamily,
        build=lambda self, shape, classes: build(shape, classes),
        prunable=lambda self, module: names,
    )


def test_a_model_may_have_auxiliary_heads_in_training() -> None:
    trial(model(TwoHeads))
    with pytest.raises(ContractError, match=r"returned \[4, 2\] for inputs"):
        trial(model(NarrowHead))


def test_a_model_may_have_tied_weights() -> None:
    trial(model(Tied, ["hidden.weight", "first.weight", "output.weight"]))


def test_a_model_may_be_for_rows_of_a_table() -> None:
    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 1:
            raise UsageError("rows of a table only")
        return nn.Linear(shape[0], classes)

    trial(model(build, ["weight"]))


def test_prunable_names_are_a_list() -> None:
    with pytest.raises(ContractError, match=r"prunable\(\) returned generator, not a list"):
        trial(model(Net, (name for name in HIDDEN_OUTPUT)))


Rng = torch.Generator


def test_a_broken_initialiser_is_noticed() -> None:
    def weight(self: Any, layer: LayerInfo, rng: Rng) -> Tensor:
        return torch.randn(layer.shape, generator=rng)

    trial(component(Initialiser, weight=weight))
    with pytest.raises(
        ContractError, match=r"weight\(\) on conv1.weight used a global random stream"
    ):
        trial(component(Initialiser, weight=lambda self, layer, rng: torch.randn(layer.shape)))
    with pytest.raises(
        ContractError, match=r"weight\(\) on conv1.weight returned shape \[16, 27\]"
    ):
        trial(
            component(
                Initialiser,
                weight=lambda self, layer, rng: torch.zeros(layer.shape[0], layer.fan_in),
            )
        )
    with pytest.raises(
        ContractError, match=r"bias\(\) on conv1.weight returned torch.float64, not float32"
    ):
        trial(
            component(
                Initialiser,
                weight=weight,
                bias=lambda self, layer, rng: torch.zeros(layer.shape[0]).double(),
            )
        )


def test_a_broken_augmentation_is_noticed() -> None:
    with pytest.raises(
        ContractError, match=r"returned shape \[4, 1, 28, 27\], not \[4, 1, 28, 28\]"
    ):
        trial(component(Augmentation, apply=lambda self, images, rng: images[..., 1:]))
    with pytest.raises(ContractError, match="changed its input"):
        trial(component(Augmentation, apply=lambda self, images, rng: images.mul_(0.5)))
    with pytest.raises(ContractError, match="used a global random stream"):
        trial(component(Augmentation, apply=lambda self, images, rng: images + torch.rand(1)))


BOX_FAULTS: dict[str, tuple[Callable[..., Any], str]] = {
    "outside": (
        lambda self, height, width, rng: Box(1, 0, height, width),
        "Box.top=1, left=0, height=28, width=28., which lies not inside the image",
    ),
    "large": (lambda self, height, width, rng: Box(0, 0, 100, 100), "lies not inside the image"),
    "a tuple": (lambda self, height, width, rng: (0, 0, 5, 5), "not a Box or None"),
    "fractions": (lambda self, height, width, rng: Box(0, 0, height / 2, 5), "lies not inside"),
    "changing": (
        lambda self, height, width, rng: Box(0, 0, 1, 1 + next(COUNTER) % 2),
        "gave two results for equal streams",
    ),
}


@pytest.mark.parametrize("fault", BOX_FAULTS)
def test_a_broken_box_is_noticed(fault: str) -> None:
    def apply(self: Any, images: Tensor, rng: Rng) -> Tensor:
        return images

    box, message = BOX_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Augmentation, apply=apply, box=box))


def source(load: Callable[[], Dataset], facts: DatasetInfo | None = None) -> type[DataSource]:
    said = facts or DatasetInfo((4,), 3, train=9, validation=3, test=3)
    return component(DataSource, facts=lambda self, folder: said, load=lambda self, folder: load())


def splits(rng: Rng | None = None, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Dataset:
    rng = rng or torch.Generator().manual_seed(0)
    parts = [
        Subset(torch.randn(n, 4, generator=rng).to(dtype), torch.arange(n) % 3) for n in (9, 3, 3)
    ]
    return Dataset(*parts, std=(std,))


def leaking() -> Dataset:
    whole = splits()
    return Dataset(whole.train, Subset(whole.train.inputs[:3], whole.train.labels[:3]), whole.test)


ENTROPY = torch.Generator().manual_seed(0)
DATA_FAULTS: dict[str, tuple[type[DataSource], str]] = {
    "sizes": (
        source(splits, DatasetInfo((4,), 3, 8, 3, 3)),
        "train has 9 examples; its facts promise 8",
    ),
    "classes": (
        source(splits, DatasetInfo((4,), 2, 9, 3, 3)),
        r"train has label 2 at example 2 \(3 such.*promise 2 classes, so labels must lie in 0 … 1",
    ),
    "changing": (source(lambda: splits(ENTROPY)), r"load\(\) gave two results"),
    "dtype": (
        source(lambda: splits(dtype=torch.float64)),
        "train has inputs torch.float64; they must be uint8 or float32",
    ),
    "std": (source(lambda: splits(std=0.0)), "inputs are divided by it, so it must be positive"),
    "leak": (source(leaking), "has 3 of 3 validation examples in train, too"),
    "nothing": (source(lambda: None), r"load\(\) returned NoneType, not Dataset"),  # type: ignore[arg-type,return-value]
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_a_broken_data_source_is_noticed(fault: str) -> None:
    trial(source(splits))
    cls, message = DATA_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(cls)


def test_absent_data_is_a_skip_and_no_failure() -> None:
    def absent() -> Dataset:
        raise DataError("broken is not there: look elsewhere")

    with pytest.raises(Skipped, match="is not there: look elsewhere"):
        trial(source(absent))


class Counting(torch.optim.SGD):
    """Remembers something that its state does not hold."""

    steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for value in group["params"]:
                value.data -= group["lr"] / self.steps * value.grad


class Headstrong(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for value in group["params"]:
                value.data -= 0.1 * value.grad


class Hoarding(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for value in group["params"]:
                self.state[value]["history"] = [1, 2]


OPTIMIZER_FAULTS: dict[str, tuple[Callable[[list[Tensor]], Any], str]] = {
    "no optimizer": (lambda ps: None, "returned NoneType, not a torch.optim.Optimizer"),
    "half": (lambda ps: torch.optim.SGD(ps[:1], lr=0.1), "does not hold each of the parameters"),
    "still": (lambda ps: torch.optim.SGD(ps, lr=0.0), "left every parameter where it was"),
    "wild": (lambda ps: torch.optim.SGD(ps, lr=1e30), "made parameters NaN or infinite"),
    "rate": (lambda ps: torch.optim.SGD(ps, lr=torch.tensor(0.1)), "`lr` is no number"),
    "forgetful": (
        lambda ps: Counting(ps, lr=0.1),
        "a saved and restored optimizer takes another step",
    ),
    "headstrong": (
        lambda ps: Headstrong(ps, lr=0.1),
        "with lr = 0 the optimizer still moves parameters",
    ),
    "hoarding": (lambda ps: Hoarding(ps, lr=0.1), "keeps 'history' as list; it cannot be saved"),
}


@pytest.mark.parametrize("fault", OPTIMIZER_FAULTS)
def test_a_broken_optimizer_is_noticed(fault: str) -> None:
    build, message = OPTIMIZER_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Optimizer, build=lambda self, parameters: build(list(parameters.values()))))


SCHEDULE_FAULTS: dict[str, tuple[Callable[[int, Clock], Any], str]] = {
    "negative": (lambda step, clock: 1 - 2 * step / clock.total, r"is -0\.0\d+ at step"),
    "infinite": (lambda step, clock: float("inf"), "is inf at step 0"),
    "tensor": (
        lambda step, clock: torch.ones(()),
        r"is tensor\(1.\) at step 0; a finite number ≥ 0 is needed",
    ),
    "nothing": (lambda step, clock: 0.0, "is 0 at every step"),
    "impure": (lambda step, clock: 1 / next(COUNTER), "gave two results for step"),
    "raises": (lambda step, clock: 1 / step, "raised ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", SCHEDULE_FAULTS)
def test_a_broken_schedule_is_noticed(fault: str) -> None:
    factor, message = SCHEDULE_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Schedule, factor=lambda self, step, clock: factor(step, clock)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"figure_name": ""}, "figure_name must be a name in words"),
        ({"figure_name": "two\nlines"}, "figure_name must be a name in words"),
        ({"figure_name": None}, "figure_name must be a name in words"),
        ({"figure_name": "test variance"}, "reports write 'test' before it"),
        ({"loss_unit": 3}, "loss_unit must be a unit"),
        ({"loss_unit": " nats"}, "loss_unit must be a unit"),
    ],
)
def test_the_names_of_an_objective_are_words(changes: dict[str, Any], complaint: str) -> None:
    class Named(Objective):
        """Reports a figure under a name."""

        use = "named"
        formula = source = "a test"

        def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
            return nn.functional.cross_entropy(outputs, labels, reduction=reduction)

        def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            return outputs.argmax(1) == labels

    trial(Named)
    for name, value in changes.items():
        setattr(Named, name, value)
    with pytest.raises(ContractError, match=complaint):
        trial(Named)
