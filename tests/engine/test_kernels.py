"""Every fast kernel against the reference: same results within rounding, same promises, and when each is chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small import (
    DATA,
    cell,
    dense_job,
    describe,
    engine_context,
    execute_one,
    kernel,
    lab,
    make,
)
from support.trainings import OPTIMIZERS, minus_zero, of_network, run_training
from torch import nn

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.api.kinds import Optimizer
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import Trained
from lotteryfw.engine import EngineContext, KernelDispatcher, Stopped, StoredOutcome
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.kernels.mlp import mlp_layers
from lotteryfw.engine.kernels.optimizer_rules import update_rule
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import KernelSpec, Spec, Train
from lotteryfw.store import Store

torch.set_num_threads(1)
FAST = ("fused", "sparse", "compact")


def job_of(density: float = 1.0, frozen: float = 0.0, steps: int = 100, **changes: Any) -> Train:
    """A training of a small chain under a random mask, dead weights at `frozen` times what they were."""
    job = dense_job(cell(steps, **changes))
    if density == 1.0:
        return job
    mask = {
        name: torch.rand(m.shape, generator=stream("mask", name)) < density
        for name, m in job.mask.items()
    }
    values = {
        n: torch.where(mask[n], v, v * frozen + 0.0) if n in mask else v
        for n, v in job.values.items()
    }
    return replace(job, mask=mask, values=values)


def on(job: Train, kernel: str) -> Train:
    """The job with the kernel in its present revision."""
    return replace(job, kernel=KernelDispatcher(engine_context())(job, kernel))


def trained(job: Train, kernel: str) -> Training:
    return run_training(TrainingGroup([on(job, kernel)], engine_context()))


def logits(of: Training) -> torch.Tensor:
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    module.load_state_dict(
        dict(zip(module.state_dict(), of.member.state().values.values(), strict=True))
    )
    (inputs, _), *_ = of._context.dataset(of.job.data).batches("validation")
    with torch.no_grad():
        found: torch.Tensor = module(inputs)
    return found


def assert_alike(job: Train, kernel: str, tolerance: float = 5e-5) -> None:
    """Logits within the tolerance (relative to their size) and the same figures but for rounding."""
    reference, fast = trained(job, "reference"), trained(job, kernel)
    truth = logits(reference)
    assert float((truth - logits(fast)).abs().max()) <= tolerance * max(
        1.0, float(truth.abs().max())
    )
    for one, other in zip(
        reference.curve["train_loss"][1:], fast.curve["train_loss"][1:], strict=True
    ):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    assert fast.curve["step"] == reference.curve["step"]


@pytest.mark.parametrize(
    ("kernel", "optimizer"),
    [pair for pair in product(FAST, OPTIMIZERS) if pair != ("sparse", "rmsprop")],
)
@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_a_fast_kernel_agrees_with_the_reference_after_100_steps(
    kernel: str, optimizer: str, density: float
) -> None:
    assert_alike(
        job_of(
            density, optimizer=OPTIMIZERS[optimizer], schedule={"use": "cosine", "warmup": "10it"}
        ),
        kernel,
    )


@pytest.mark.parametrize("kernel", FAST)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_agrees_for_any_shape_density_batch_and_optimizer(
    kernel: str, data: st.DataObject
) -> None:
    hidden = data.draw(st.lists(st.integers(1, 9), max_size=3))
    model = {"use": "mlp", "hidden": hidden, "bias": data.draw(st.booleans())}
    density = data.draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    optimizer = OPTIMIZERS[
        data.draw(st.sampled_from([name for name in OPTIMIZERS if name != "rmsprop"]))
    ]
    if "adam" in optimizer["use"]:
        optimizer = optimizer | {
            "eps": 1e-2
        }  # else it blows the rounding of a gradient near zero up to a whole step
    job = job_of(
        density, steps=4, model=model, optimizer=optimizer, batch=data.draw(st.integers(1, 40))
    )
    reference, fast = trained(job, "reference"), trained(job, kernel)
    for name, value in reference.member.state().values.items():
        torch.testing.assert_close(fast.member.state().values[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "frozen", "optimizer"),
    [
        *product(["fused"], [0.0, 1.0], ["decay", "momentum", "adamw"]),
        *product(["sparse"], [0.0], ["decay", "momentum", "adamw"]),
        *product(["sparse"], [1.0], ["sgd", "nesterov"]),
    ],
)
def test_frozen_weights_stay_bit_constant(kernel: str, frozen: float, optimizer: str) -> None:
    job = job_of(0.3, frozen, optimizer=OPTIMIZERS[optimizer])
    after = trained(job, kernel).member.state().values
    for name, mask in job.mask.items():
        assert after[name][~mask].numpy().tobytes() == job.values[name][~mask].numpy().tobytes()
        assert not torch.equal(after[name][mask], job.values[name][mask])


@pytest.mark.parametrize("kernel", ["reference", "fused"])
def test_a_dead_weight_at_minus_zero_keeps_its_sign(kernel: str) -> None:
    job = minus_zero(job_of(0.3, steps=3))
    after = trained(job, kernel).member.state().values
    for name, mask in job.mask.items():
        assert bool(torch.signbit(after[name][~mask]).all())


@pytest.mark.parametrize("kernel", FAST)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_it_repeats_and_resumes_bit_identically(
    kernel: str, optimizer: str, tmp_path: Path
) -> None:
    job = on(job_of(0.3, optimizer=OPTIMIZERS[optimizer], steps=60), kernel)
    stores = [Store(tmp_path / name) for name in "abc"]
    for store in stores[:2]:
        execute_one(job, store, engine_context(), lambda done, of: False)
    with pytest.raises(Stopped):
        execute_one(job, stores[2], engine_context(), lambda done, of: done == 23)
    execute_one(job, stores[2], engine_context(), lambda done, of: False)
    outcomes = [StoredOutcome(store, job.key) for store in stores]
    assert outcomes[0].metrics == outcomes[1].metrics == outcomes[2].metrics
    bits = [
        {name: value.numpy().tobytes() for name, value in o.tensors().encoded().items()}
        for o in outcomes
    ]
    assert bits[0] == bits[1] == bits[2]


@pytest.mark.parametrize("kernel", FAST)
def test_a_saved_optimizer_state_moves_between_kernels(kernel: str) -> None:
    job = job_of(optimizer=OPTIMIZERS["adam"], steps=40)
    first = trained(replace(job, steps=15), "reference")
    values = {name: value.clone() for name, value in first.member.state().values.items()}
    rest = replace(
        job, start=15, steps=25, values=values, optimizer_state=first.member.optimizer_state()
    )
    whole = trained(job, "reference").member.state().values
    for name, value in trained(rest, kernel).member.state().values.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kernel", FAST)
def test_a_chain_of_cuts_gives_the_same_masks(kernel: str) -> None:
    """IMP by hand, four levels: what rounding changes must be too little to change what is kept."""
    of = cell(60, data={**DATA, "noise": 1.0}, optimizer=OPTIMIZERS["momentum"])
    desk = lab(of)

    def chain(name: str) -> Iterator[dict[str, torch.Tensor]]:
        ticket = desk.dense()
        for _ in range(4):
            after = trained(desk.job(ticket), name)
            state = after.member.state()
            outcome: Any = SimpleNamespace(diverged_at=None, tensors=lambda state=state: state)
            ticket = desk.prune(ticket, Trained(ticket, outcome))
            yield dict(ticket.mask)

    for one, other in zip(chain("reference"), chain(kernel), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_masked_biases_are_left_to_the_other_kernels() -> None:
    job = job_of(0.05)
    choose = KernelDispatcher(engine_context())
    assert choose(job, "auto").name == "sparse"
    of_bias = {"fc1.bias": torch.ones(8, dtype=torch.bool)}
    other = replace(job, mask={**job.mask, **of_bias})
    with pytest.raises(UsageError, match=r"and here fc1\.bias is masked"):
        choose(other, "sparse")
    assert choose(other, "auto").name == "lockstep"


class Clipped(Optimizer):
    """SGD along gradients that are clipped to a small norm."""

    use = "clipped"

    def build(self, parameters: Mapping[str, torch.Tensor]) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters.values(), lr=0.5)

        def clip(*args: Any) -> None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1e-2)

        optimizer.register_step_pre_hook(clip)
        return optimizer


class Noisy(Optimizer):
    """Stochastic gradient Langevin dynamics."""

    use = "noisy"

    def build(self, parameters: Mapping[str, torch.Tensor]) -> torch.optim.Optimizer:
        return Langevin(parameters.values(), {"lr": 0.1})


class Langevin(torch.optim.Optimizer):
    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for value in self.param_groups[0]["params"]:
                value.sub_(value.grad, alpha=self.param_groups[0]["lr"])
                value.add_(torch.randn_like(value), alpha=1e-3)


def with_optimizer(
    job: Train, optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Train, EngineContext]:
    """A job with an optimizer of a plugin, and an engine that has it."""
    context = engine_context()
    real, spec = context.component, Spec("optimizer", optimizer.use, "tests", {})
    monkeypatch.setattr(
        context, "component", lambda other: optimizer if other == spec else real(other)
    )
    return replace(job, optimizer=spec), context


def values_by(job: Train, kernel: str, context: EngineContext) -> Mapping[str, torch.Tensor]:
    """The weights after a training by a kernel."""
    job = replace(job, kernel=KernelDispatcher(context)(job, kernel))
    training = run_training(TrainingGroup([job], context))
    return {name: value.clone() for name, value in training.member.state().values.items()}


def test_an_optimizer_with_step_hooks_makes_its_steps_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, context = with_optimizer(job_of(0.3, steps=20), Clipped(), monkeypatch)
    choose = KernelDispatcher(context)
    for name in ("lockstep", "sparse"):
        with pytest.raises(UsageError, match="the optimizer has step hooks"):
            choose(job, name)
    with pytest.raises(UsageError, match="SGD with step hooks is not known to update each weight"):
        choose(job, "compact")
    assert choose(job, "auto").name == "fused"
    by_reference, by_fused = (values_by(job, name, context) for name in ("reference", "fused"))
    for name, value in by_reference.items():
        torch.testing.assert_close(by_fused[name], value, rtol=1e-4, atol=1e-6)
        # A step of a rate of 0.5 along a gradient of a norm of 0.01, at most.
        assert float((value - job.values[name]).norm()) <= 20 * 0.5 * 1e-2


def test_an_optimizer_that_draws_repeats_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    job, context = with_optimizer(job_of(0.3, steps=20), Noisy(), monkeypatch)
    first = values_by(job, "fused", context)
    torch.rand(5)
    again = values_by(job, "fused", context)
    for name, value in values_by(job, "reference", context).items():
        assert torch.equal(again[name], first[name])
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5)


def test_an_adam_with_decoupled_weight_decay_is_an_adamw() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1)], weight_decay=0.1)
    rule = update_rule(optimizer)
    assert rule is not None
    assert rule.rule == "adam"
    # An option of torch since 2.7.
    optimizer.param_groups[0]["decoupled_weight_decay"] = True
    rule = update_rule(optimizer)
    assert rule is not None
    assert rule.rule == "adamw"


def test_chains_are_told_from_other_networks() -> None:
    linear, relu = nn.Linear(4, 4), nn.ReLU
    assert mlp_layers(nn.Sequential(nn.Flatten(), linear, relu(), nn.Linear(4, 2))) == ["1", "3"]
    assert mlp_layers(nn.Sequential(nn.Sequential(linear, relu()), nn.Linear(4, 2))) == ["0.0", "1"]
    for other, why in {
        nn.Sequential(linear, nn.Linear(4, 2)): "Linear at '1'",
        nn.Sequential(linear, relu()): "does not end",
        nn.Sequential(linear, nn.Dropout(), relu(), nn.Linear(4, 2)): "Dropout",
        nn.Sequential(nn.Conv2d(1, 1, 3), relu(), nn.Flatten(), linear): "Conv2d",
        nn.Sequential(nn.Flatten(), linear, nn.Tanh(), nn.Linear(4, 2)): "Tanh",
        Doubling(linear, relu(), nn.Linear(4, 2)): "Doubling",
        nn.Sequential(Doubling(linear, relu()), nn.Linear(4, 2)): "Doubling at '0'",
    }.items():
        assert why in mlp_layers(other)


def test_a_chain_fits_the_inputs_and_every_layer_the_one_before() -> None:
    on_pixels = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    assert mlp_layers(on_pixels) == mlp_layers(on_pixels, (8,)) == ["0", "2"]
    assert "no Flatten before the Linear at '0'" in mlp_layers(on_pixels, (1, 8, 8))
    assert "no Flatten before the Linear at '0'" in mlp_layers(on_pixels, (1, 8))
    assert "'0' takes 8 inputs, and gets 64" in mlp_layers(on_pixels, (64,))
    flattened = nn.Sequential(nn.Flatten(), nn.Identity(), *on_pixels)
    assert mlp_layers(flattened, (8,)) == mlp_layers(flattened, (2, 2, 2)) == ["2", "4"]
    assert "'2' takes 8 inputs, and gets 64" in mlp_layers(flattened, (1, 8, 8))
    torn = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(5, 3))
    assert "'2' takes 5 inputs, and gets 4" in mlp_layers(torn)


UNFIT: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "without a Flatten": (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        {},
        "no Flatten before the Linear at '0'",
    ),
    "of more inputs": (
        nn.Sequential(nn.Flatten(), nn.Linear(30, 6), nn.ReLU(), nn.Linear(6, 3)),
        {},
        "'1' takes 30 inputs, and gets 16",
    ),
    "of fewer inputs": (
        nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)),
        {},
        "'1' takes 8 inputs, and gets 16",
    ),
    "of other widths": (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(7, 3)),
        {},
        "'3' takes 7 inputs, and gets 6",
    ),
    "of fewer outputs than classes": (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 2)),
        {},
        "the network has 2 outputs for 3 classes",
    ),
    "of tokens": (
        nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
        {"data": {"use": "synthetic_text", "length": 6, "classes": 3}, "model": "embedding_mlp"},
        "the inputs are tokens",
    ),
}
"""Networks that cannot be trained on their data, with changes of the cell, and why."""


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_network_that_does_not_fit_its_data_is_left_to_the_reference(
    unfit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, changes, why = UNFIT[unfit]
    job = of_network(job_of(steps=3, **changes), network, monkeypatch)
    choose = KernelDispatcher(engine_context())
    assert choose(job, "auto") == kernel("reference")
    for fast in ("fused", "sparse", "lockstep"):
        with pytest.raises(UsageError, match=f"'{fast}' cannot train this: .*{why}"):
            choose(job, fast)
    # It says what is wrong, as torch does.
    with pytest.raises((RuntimeError, IndexError)):
        trained(job, "reference")


def test_a_network_may_have_more_outputs_than_the_data_has_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5))
    job = of_network(job_of(steps=10), network, monkeypatch)
    for fast in ("fused", "sparse"):
        ours, theirs = trained(job, fast), trained(job, "reference")
        for name, value in theirs.member.state().values.items():
            torch.testing.assert_close(ours.member.state().values[name], value)


class Doubling(nn.Sequential):
    """A Sequential in name only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_chain_may_use_a_relu_twice_but_no_weight() -> None:
    a, h, b, relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()
    assert mlp_layers(nn.Sequential(a, relu, h, relu, b)) == ["0", "2", "4"]
    assert "'2.weight'" in mlp_layers(nn.Sequential(a, relu, a))
    assert "'4.weight'" in mlp_layers(nn.Sequential(a, relu, h, relu, h))
    assert "does not end" in mlp_layers(nn.Sequential(a, relu, b, relu))
    b.weight = a.weight
    assert "'2.weight'" in mlp_layers(nn.Sequential(a, relu, b))


def _noisy(part: nn.Linear) -> None:
    part.forward = lambda x: x  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda part: part.register_forward_hook(lambda *said: None), "Linear with hooks at '2'"),
        (
            lambda part: part.register_forward_pre_hook(lambda *said: None),
            "Linear with hooks at '2'",
        ),
        (
            lambda part: part.register_full_backward_hook(lambda *said: None),
            "Linear with hooks at '2'",
        ),
        (nn.utils.parametrizations.weight_norm, "ParametrizedLinear at '2'"),
        (_noisy, "Linear with a forward of its own at '2'"),
        (lambda part: part.bias.requires_grad_(False), "'2.bias' is not trained"),
    ],
)
def test_a_layer_that_does_more_than_its_product_is_in_no_chain(change: Any, why: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert mlp_layers(network) == ["0", "2"]
    change(network[2])
    assert why in mlp_layers(network)


def test_the_choice_follows_from_the_job_alone() -> None:
    choose = KernelDispatcher(engine_context())
    assert choose(job_of(), "auto") == kernel("lockstep")
    assert choose(job_of(0.5), "auto") == kernel("lockstep")
    assert choose(job_of(0.05), "auto") == sparse_kernel(f"numba{version('numba')}")
    assert choose(job_of(0.05), "fused") == kernel("fused")
    for unfit, why in {
        "frozen": (
            job_of(0.05, frozen=1.0, optimizer=OPTIMIZERS["decay"]),
            "are not 0, and the optimizer has a weight decay",
        ),
        "below 0": (minus_zero(job_of(0.05)), "frozen at -0.0"),
        "optimizer": (job_of(0.05, optimizer=OPTIMIZERS["rmsprop"]), "no RMSprop"),
        "augmented": (
            replace(job_of(0.05), augment=(describe(make("augmentation", "flip"), Clock(1, 1)),)),
            "augmen",
        ),
    }.values():
        assert choose(unfit, "auto") in (kernel("fused"), kernel("lockstep"))
        with pytest.raises(UsageError, match=why):
            choose(unfit, "sparse")
    assert choose(job_of(), "reference") == kernel("reference")
    images = {**DATA, "shape": [1, 8, 8]}
    convolution = job_of(steps=2, model="conv2", data=images)
    assert choose(convolution, "auto") == kernel("reference")
    with pytest.raises(
        UsageError, match=r"kernel 'fused' cannot train this: .*Conv2d.*use auto or reference"
    ):
        choose(convolution, "fused")


def test_the_kernel_is_in_the_key_and_a_stale_revision_is_refused() -> None:
    job = job_of()
    assert replace(job, kernel=kernel("fused")).key != replace(job, kernel=kernel("reference")).key
    old_loops = {"loops": "numba0.1", "below": 0.2}
    others = [KernelSpec("sparse", 3), KernelSpec("sparse", 3, old_loops), KernelSpec("quick", 1)]
    for stale in (KernelSpec("fused", 0), KernelSpec("fused", 2), *others):
        message = rf"made for kernel {re.escape(str(stale))}; .* fused/1, fused_masks/1, sparse/3"
        with pytest.raises(LotteryError, match=message):
            TrainingGroup([replace(job, kernel=stale)], engine_context())


@pytest.mark.usefixtures("without_numba")
def test_without_numba_torch_does_the_sparse_products() -> None:
    choose = KernelDispatcher(engine_context())
    assert choose(job_of(0.15), "auto") == kernel("sparse", loops="torch", below=0.2)
    assert choose(job_of(0.26), "auto").name != "sparse", (
        "its products break even at a lower density than numba's"
    )
    assert_alike(job_of(0.15, optimizer=OPTIMIZERS["adam"]), "auto")
    numbas = replace(job_of(0.05), kernel=sparse_kernel(f"numba{version('numba')}"))
    with pytest.raises(LotteryError, match=r'has [^;]*sparse/3.*; .*pip install "numba==[\d.]+"$'):
        TrainingGroup([numbas], engine_context())


def test_a_job_made_without_numba_can_be_done_with_it() -> None:
    """By the loops that it names: the key says whose bits they are."""
    kernels = [sparse_kernel(f"numba{version('numba')}", 0.9), sparse_kernel("torch", 0.9)]
    jobs = [replace(job_of(0.5, steps=30), kernel=spec) for spec in kernels]
    ends = []
    for job in jobs:
        training = run_training(TrainingGroup([job], engine_context()))
        ends.append(training.member.state().values["fc1.weight"])
    assert jobs[0].key != jobs[1].key
    assert not torch.equal(*ends)
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_the_density_of_sparse_products_can_be_set() -> None:
    choose, loops = KernelDispatcher(engine_context()), f"numba{version('numba')}"
    assert choose(job_of(0.5), "auto", 0.9) == sparse_kernel(loops, 0.9)
    assert choose(job_of(0.05), "auto", 0.0).name != "sparse"
    default = choose(job_of(0.05), "auto")
    assert choose(job_of(0.05), "auto", 0.45) == default == sparse_kernel(loops), (
        "its own figure is no other job"
    )
    assert choose(job_of(0.05), "fused", 0.9) == kernel("fused")
    dense = on(job_of(0.5), "sparse")
    sparse = replace(job_of(0.5), kernel=sparse_kernel(loops, 0.9))
    assert sparse.key != dense.key
    assert layer_types(dense) == {"DenseProducts"}
    assert layer_types(sparse) == {"Products"}


def test_where_most_inputs_are_0_the_first_layer_reads_the_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide: dict[str, Any] = {
        "model": {"use": "mlp", "hidden": [300, 40]},
        "data": {**DATA, "shape": [1, 20, 20]},
    }
    jobs = {
        "dense": job_of(steps=10, **wide),
        "half": job_of(0.5, steps=10, **wide),
        "frozen": job_of(0.05, frozen=1.0, steps=10, **wide),
        "sparse": job_of(0.05, steps=10, **wide),
    }
    choose = KernelDispatcher(engine_context())
    assert {name: choose(job, "auto").name for name, job in jobs.items()} == {
        "dense": "fused", "half": "fused", "frozen": "fused", "sparse": "sparse",
    }  # fmt: skip

    monkeypatch.setattr(DeviceDataset, "nonzero_share", lambda self: 0.2)
    loops = f"numba{version('numba')}"
    reads_few = kernel("sparse", loops=loops, below=0.45, inputs="sparse")
    for name in ("dense", "half", "frozen"):
        assert choose(jobs[name], "auto") == reads_few, name
        reference, fast = trained(jobs[name], "reference"), trained(jobs[name], "auto")
        for parameter, value in reference.member.state().values.items():
            ours = fast.member.state().values[parameter]
            torch.testing.assert_close(ours, value, rtol=1e-3, atol=1e-4)
    assert layer_types(replace(jobs["half"], kernel=reads_few)) == {
        "SparseInputProducts", "DenseProducts",
    }  # fmt: skip
    assert choose(jobs["sparse"], "auto") == sparse_kernel(loops), "its few weights cost even less"
    assert choose(job_of(), "auto") == kernel("lockstep"), "what is small gains more by a group"


def test_the_share_of_inputs_that_are_not_0() -> None:
    data = make("data", "digits")
    dataset = data.load(Path())
    stored = dataset.train.inputs
    share = DeviceDataset(dataset, data.facts(Path()), "cpu").nonzero_share()
    assert share == pytest.approx(float((stored != 0).double().mean()), abs=1e-12)
    assert 0.4 < share < 0.6
    normalised = make("data", {"use": "digits", "normalise": "standard"})
    facts = normalised.facts(Path())
    assert DeviceDataset(normalised.load(Path()), facts, "cpu").nonzero_share() == 1.0


def sparse_kernel(loops: str, below: float = 0.45) -> KernelSpec:
    return kernel("sparse", loops=loops, below=below)


def layer_types(job: Train) -> set[str]:
    group = TrainingGroup([job], engine_context())
    return {type(layer).__name__ for layer in group.kernel.mlp.products.layers}  # type: ignore[attr-defined]
