"""The compact kernel: what it leaves out is dead, and nothing can tell that it is gone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small import DATA, cell, dense_job, engine_context, execute_one, kernel
from support.trainings import run_training
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lotteryfw.api.errors import UsageError
from lotteryfw.api.rng import stream
from lotteryfw.engine import KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.kernels.dead_units import LiveNetwork, shrinkable_layers
from lotteryfw.engine.kernels.kernel import Candidate
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train
from lotteryfw.store import Store

torch.set_num_threads(1)
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1, eps=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1, eps=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1, eps=1e-3),
}
IMAGE = (2, 6, 6)


def network(
    channels: list[int], hidden: list[int], pool: bool, relu: bool, bias: bool
) -> nn.Sequential:
    """Convolutions of 3×3, a pooling, Linear layers; without ReLU the first two layers are followed by none."""
    parts: list[nn.Module] = []
    before, side = IMAGE[0], IMAGE[1]
    for number, channel in enumerate(channels):
        parts += [
            nn.Conv2d(before, channel, 3, padding=1, stride=1 + number, bias=bias),
            nn.Identity(),
        ]
        parts += [nn.ReLU()] if relu or number else []
        before, side = channel, (side + number) // (1 + number)
    if pool:
        parts += [nn.MaxPool2d(2)]
        side //= 2
    parts += [nn.Flatten()]
    for width in hidden:
        parts += [
            nn.Sequential(
                nn.Linear(before * side**2, width, bias=bias), *([nn.ReLU()] if relu else [])
            )
        ]
        before, side = width, 1
    return nn.Sequential(*parts, nn.Linear(before * side**2, 3, bias=bias)).double()


class Twin:
    """One masked network trained twice, whole and shrunk, in float64 by plain loops."""

    def __init__(self, module: nn.Sequential, mask: dict[str, Tensor], optimizer: str):
        self.module, self.mask = module, mask
        layers = shrinkable_layers(module, IMAGE)
        assert not isinstance(layers, str), layers
        self.held = {
            name: p.detach().clone() for name, p in module.named_parameters() if name in mask
        }
        self.whole, self.other = ({n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
                                  for _ in range(2))  # fmt: skip
        self.shrunk = LiveNetwork(layers, self.other, mask)
        self.optimizers = [
            OPTIMIZERS[optimizer](list(of.values())) for of in (self.whole, self.other)
        ]
        self.rng = torch.Generator().manual_seed(0)

    def step(self) -> None:
        x = torch.rand(5, *IMAGE, generator=self.rng, dtype=torch.float64)
        y = torch.randint(0, 3, (5,), generator=self.rng)
        for of, used, optimizer in zip(
            (self.whole, self.other),
            (self.whole, self.shrunk.parameters()),
            self.optimizers,
            strict=True,
        ):
            optimizer.zero_grad()
            cross_entropy(functional_call(self.module, used, (x,)), y).backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in self.mask.items():
                    of[name].copy_(torch.where(mask, of[name], self.held[name]))

    def assert_alike(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            for name, value in self.whole.items():
                torch.testing.assert_close(self.other[name], value, rtol=0, atol=1e-12)

    def units(self) -> list[int]:
        """How many units of each layer are left."""
        return [
            len(value)
            for name, value in self.shrunk.parameters().items()
            if name.endswith("weight")
        ]


@st.composite
def twins(draw: st.DrawFn) -> Twin:
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))
    channels, hidden = (draw(st.lists(st.integers(1, 6), max_size=size)) for size in (2, 3))
    module = network(channels, hidden, *(draw(st.booleans()) for _ in range(3)))
    mask = {}
    for name, value in module.named_parameters():
        if name.endswith("bias"):
            value.data *= torch.randint(-1, 2, value.shape, generator=rng)  # of all signs
        elif draw(st.integers(0, 5)):  # one layer in six is not pruned
            alive = torch.rand(value.shape, generator=rng) < draw(
                st.sampled_from([0.0, 0.05, 0.3, 1.0])
            )
            for across in range(2):  # whole rows and columns of none
                dead = torch.rand(value.shape[across], generator=rng) < draw(
                    st.sampled_from([0.0, 0.5, 1.0])
                )
                alive &= ~dead.reshape(
                    [-1 if place == across else 1 for place in range(value.dim())]
                )
            mask[name] = alive
            value.data[~alive] *= draw(st.sampled_from([0.0, 0.0, 0.0, 1.0]))
        else:
            value.data *= torch.rand(value.shape, generator=rng) < 0.3  # 0 now, yet free to move
    return Twin(module, mask, draw(st.sampled_from(list(OPTIMIZERS))))


@given(twin=twins())
@settings(max_examples=150, deadline=None)
def test_no_parameter_ever_differs(twin: Twin) -> None:
    twin.assert_alike(steps=8)


def chain_with(bias: float, optimizer: str) -> Twin:
    """72-3-4-3 with ReLUs; the first unit has no living weight, and starts at a bias."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)
    ).double()
    mask = {
        name: torch.ones_like(p, dtype=torch.bool)
        for name, p in module.named_parameters()
        if "weight" in name
    }
    mask["1.weight"][0] = False
    module[1].weight.data[0] = 0.0  # type: ignore[union-attr, operator, index]
    module[1].bias.data[0] = bias  # type: ignore[union-attr, operator, index]
    return Twin(module, mask, optimizer)


@pytest.mark.parametrize(
    ("bias", "left"), [(-0.5, 2), (-0.0, 2), (0.0, 2), (0.5, 3), (float("nan"), 3)]
)
def test_a_unit_that_nothing_feeds_goes_unless_its_bias_lifts_it(bias: float, left: int) -> None:
    assert chain_with(bias, "sgd").units() == [left, 4, 3]


def test_a_constant_unit_goes_on_training() -> None:
    twin = chain_with(0.5, "sgd")
    twin.assert_alike(steps=5)
    assert float(twin.other["1.bias"].detach()[0]) != 0.5


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_dead_unit_comes_back_when_decay_pushes_its_bias_over_0(optimizer: str) -> None:
    """Both step by the size of the learning rate however small a gradient is: past 0, where the unit lives again."""
    twin = chain_with(-0.02, optimizer)
    seen = set()
    for _ in range(40):
        twin.assert_alike(steps=1)
        seen.add(twin.units()[0])
    assert seen == {2, 3}


def test_a_dead_unit_takes_with_it_what_only_it_read() -> None:
    module = network([4, 5], [6], pool=True, relu=True, bias=True)
    mask = {
        name: torch.ones_like(p, dtype=torch.bool)
        for name, p in module.named_parameters()
        if "weight" in name
    }
    _, second, third, last = mask
    mask[last][:, 2] = False  # nobody reads hidden unit 2,
    columns = mask[third].view(6, 5, -1)
    columns[:, 1] = False  # nor channel 1 of the second convolution but for that unit,
    columns[2, 1] = True
    mask[second][:, 3] = False  # nor channel 3 of the first but for channel 1
    mask[second][1, 3] = True
    columns[0, 0, 1:] = False  # one column of a channel is enough to keep it
    module.load_state_dict(
        {n: p * mask.get(n, torch.ones(())) for n, p in module.state_dict().items()}
    )
    twin = Twin(module, mask, "momentum")
    assert twin.units() == [3, 4, 5, 3]
    assert twin.shrunk.work() == pytest.approx((3 * 2 * 9 * 36 + 4 * 3 * 9 * 9 + 5 * 4 * 1 + 3 * 5)
                                               / (4 * 2 * 9 * 36 + 5 * 4 * 9 * 9 + 6 * 5 * 1 + 3 * 6))  # fmt: skip
    twin.assert_alike(steps=5)


@pytest.mark.parametrize("emptied", range(4))
def test_an_empty_layer_leaves_a_function_of_later_biases(emptied: int) -> None:
    module = network([4, 5], [6], pool=True, relu=True, bias=True)
    name = [name for name, _ in module.named_parameters() if "weight" in name][emptied]
    module.get_parameter(name).data.zero_()
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            part.bias.data.abs_() if emptied % 2 else part.bias.data.zero_()
    twin = Twin(
        module, {name: torch.zeros_like(module.get_parameter(name), dtype=torch.bool)}, "momentum"
    )
    if emptied == 0:
        assert twin.units() == [1, 1, 1, 3]
    twin.assert_alike(steps=6)


IMAGES = {**DATA, "shape": [1, 8, 8]}
TABLES: dict[str, dict[str, Any]] = {
    "sgd": {"use": "sgd", "lr": 0.1},
    "momentum": {"use": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"use": "adam", "lr": 1e-3, "weight_decay": 1e-3},
}


def job_of(density: float, steps: int, **changes: Any) -> Train:
    """A training under a mask of dead rows and columns (half of each) with random holes, its biases of all signs."""
    job = dense_job(cell(steps, **changes))
    mask = {}
    for name, whole in job.mask.items():
        rng = stream("mask", name)
        alive = torch.rand(whole.shape, generator=rng) < density
        alive[torch.rand(len(alive), generator=rng) < 0.5] = False
        alive[:, torch.rand(alive.shape[1], generator=rng) < 0.5] = False
        mask[name] = alive
    values = {}
    for name, value in job.values.items():
        drawn = (torch.randint(-1, 2, value.shape, generator=stream("bias", name)) * 0.1).float()
        values[name] = value * mask[name] + 0.0 if name in mask else drawn
    return replace(job, mask=mask, values=values)


def trained(job: Train, kernel: str) -> Training:
    job = replace(job, kernel=KernelDispatcher(engine_context())(job, kernel))
    return run_training(TrainingGroup([job], engine_context()))


def logits(of: Training) -> Tensor:
    feed = of._context.dataset(of.job.data)
    (inputs, _), *_ = feed.batches("validation")
    with torch.no_grad():
        return functional_call(
            of._context.network(of.job.model, feed), dict(of.member.state().values), (inputs,)
        )  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", TABLES)
@pytest.mark.parametrize(
    "model", ["conv2", {"use": "mlp", "hidden": [20, 12]}], ids=["conv2", "mlp"]
)
def test_it_agrees_with_the_reference_after_100_steps(model: Any, optimizer: str) -> None:
    job = job_of(0.3, 100, model=model, data=IMAGES, optimizer=TABLES[optimizer], evaluate_every=50)
    reference, compact = trained(job, "reference"), trained(job, "compact")
    truth, found = logits(reference), logits(compact)
    assert float((found - truth).abs().max()) <= 5e-5 * max(1.0, float(truth.abs().max()))
    assert compact.curve["validation_loss"] == pytest.approx(
        reference.curve["validation_loss"], rel=1e-3
    )
    for name, value in compact.member.state().values.items():
        torch.testing.assert_close(
            value, reference.member.state().values[name], rtol=1e-3, atol=1e-4
        )


def test_it_computes_with_the_living_part_only() -> None:
    job = job_of(0.3, 2, model="conv2", data=IMAGES)
    job = replace(job, kernel=KernelDispatcher(engine_context())(job, "compact"))
    group = TrainingGroup([job], engine_context())
    training = run_training(group)
    small: Any = group.kernel.live.parameters()  # type: ignore[attr-defined]
    assert len(small["conv1.weight"]) < 40 < training.member.state().values["conv1.weight"].shape[0]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_it_repeats_and_resumes_bit_identically(optimizer: str, tmp_path: Path) -> None:
    """Stopped after biases have changed signs, so that the living part is another than at the start."""
    model = {"use": "mlp", "hidden": [20, 12]}
    job = job_of(
        0.3, 60, model=model, optimizer=TABLES[optimizer] | {"weight_decay": 0.5, "lr": 0.05}
    )
    job = replace(job, kernel=KernelDispatcher(engine_context())(job, "compact"))
    stores = [Store(tmp_path / name) for name in "ab"]
    execute_one(job, stores[0], engine_context(), lambda done, of: False)
    with pytest.raises(Stopped):
        execute_one(job, stores[1], engine_context(), lambda done, of: done == 23)
    execute_one(job, stores[1], engine_context(), lambda done, of: False)
    one, other = (StoredOutcome(store, job.key) for store in stores)
    assert one.metrics == other.metrics
    assert {n: v.numpy().tobytes() for n, v in one.tensors().encoded().items()} == {
        n: v.numpy().tobytes() for n, v in other.tensors().encoded().items()
    }


class Residual(nn.Sequential):
    """A Sequential in name only."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def _hooked() -> nn.Sequential:
    module = network([2], [3], pool=True, relu=True, bias=True)
    module[0].register_forward_hook(lambda *said: None)
    return module


def _tied() -> nn.Sequential:
    shared = nn.Linear(72, 72)
    return nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)


def _constant() -> nn.Sequential:
    module = network([2], [3], pool=True, relu=True, bias=True)
    module[0].bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    return module


CONV = nn.Conv2d(2, 4, 3)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (
            nn.Sequential(CONV, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
            r"a BatchNorm2d at '1'",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.Dropout(), nn.Linear(4, 3)),
            r"a Dropout at '2'",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.Tanh(), nn.Linear(4, 3)),
            r"a Tanh at '2'",
        ),
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten()), r"a Conv2d of 2 groups at '0'"),
        (
            nn.Sequential(CONV, nn.Flatten(2), nn.Linear(16, 3)),
            r"a Flatten\(start_dim=2, end_dim=-1\) at '1'",
        ),
        (nn.Sequential(CONV, nn.Linear(4, 3)), r"a Linear\(.*\) for inputs of 4 dimensions at '1'"),
        (
            nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
            "a MaxPool2d that returns indices at '0'",
        ),
        (
            nn.Sequential(CONV, nn.Flatten(), nn.Linear(10, 3)),
            r"Linear at '2' cannot take its inputs: .*shapes",
        ),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no Linear or Conv2d layer"),
        (nn.Sequential(Residual(nn.Flatten())), "a Residual at '0'"),
        (nn.Linear(6, 3), r"the network is a Linear, no nn\.Sequential"),
        (_hooked(), "a Conv2d with hooks at '0'"),
        (_tied(), r"several places, as '3\.weight'"),
        (_constant(), r"'0\.bias' is not trained"),
    ],
)
def test_other_networks_are_refused_with_the_reason(module: nn.Module, why: str) -> None:
    said = shrinkable_layers(module.float(), IMAGE)
    assert isinstance(said, str)
    assert re.search(why, said), said


def test_auto_takes_it_for_convolutions_that_lost_channels() -> None:
    choose = KernelDispatcher(engine_context())
    pruned = job_of(0.3, 2, model="conv2", data=IMAGES)
    assert choose(pruned, "auto") == kernel("compact")
    assert choose(replace(pruned, device="cuda"), "auto") == kernel("compact")
    whole = dense_job(cell(2, model="conv2", data=IMAGES))
    first = whole.mask["conv1.weight"].clone()
    first[:8] = (
        False  # an eighth of the channels, so of the second layer's work, is too little to gain by
    )
    values = {**whole.values, "conv1.weight": whole.values["conv1.weight"] * first}
    for little in (
        whole,
        replace(whole, mask={**whole.mask, "conv1.weight": first}, values=values),
    ):
        assert choose(little, "auto") == kernel("reference")
        assert choose(little, "compact") == kernel("compact")
    chain = job_of(0.3, 2)
    assert choose(chain, "auto").name != "compact"
    assert choose(chain, "compact") == kernel("compact")


def test_an_optimizer_that_couples_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Candidate, "optimizer", torch.optim.LBFGS([torch.zeros(1)]))
    pruned = job_of(0.3, 2, model="conv2", data=IMAGES)
    assert KernelDispatcher(engine_context())(pruned, "auto") == kernel("reference")
    with pytest.raises(
        UsageError, match="kernel 'compact' cannot train this: LBFGS is not known to"
    ):
        KernelDispatcher(engine_context())(pruned, "compact")
