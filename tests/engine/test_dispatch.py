"""The list of kernels, and the choice among them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from support.small import cell, dense_job, engine_context, kernel, lab, make
from support.trainings import run_training
from torch import Tensor

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine import KernelDispatcher, group_key
from lotteryfw.engine.kernels.dispatch import descriptions
from lotteryfw.engine.kernels.kernel import KernelDescription
from lotteryfw.engine.kernels.trained_network import TrainedNetwork
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.train import TrainingGroup
from lotteryfw.search.jobs import KernelSpec, Train, from_plain
from lotteryfw.search.kernel_list import KERNEL_LIST, KERNELS


def test_every_kernel_of_the_list_has_a_description_of_its_name() -> None:
    modules = [module for names in KERNEL_LIST.values() for module in names]
    assert [description.name for description in descriptions()] == modules
    assert len(set(modules)) == len(modules)


@pytest.mark.parametrize("choice", [choice for choice in KERNELS if choice != "auto"])
def test_a_choice_is_trained_by_its_own_modules(choice: str) -> None:
    choose = KernelDispatcher(engine_context())
    # One kernel alone is for several devices, and for nothing else.
    job = dense_job(cell(20, devices=2 if choice == "distributed" else 1))
    assert choose(job, choice).name in KERNEL_LIST[choice]


def test_reference_and_fused_train_weights_and_masks_by_two_modules() -> None:
    choose = KernelDispatcher(engine_context())
    other = make("parametrization", {"use": "bernoulli", "rescale": "static"})
    learning = lab(cell(20, parametrization=other))
    job = learning.job(learning.learn_mask(None))
    assert choose(job, "reference") == choose(job, "auto") == kernel("mask_training")
    with pytest.raises(UsageError, match="it trains weights, and here masks are learned"):
        choose(job, "lockstep")
    with pytest.raises(UsageError, match=r"it has the rules top_k, .* has another"):
        choose(job, "fused")
    smoothed = {"use": "classification", "label_smoothing": 0.1}
    with pytest.raises(UsageError, match="cross-entropy built in"):
        choose(dense_job(cell(20, objective=smoothed)), "fused")


def test_the_engine_is_imported_without_torch() -> None:
    program = "import sys, lotteryfw.engine, lotteryfw.engine.kernels.dispatch\n"
    program += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


class Halving:
    """A kernel that is nobody's: it halves every weight at each step."""

    loss_dtype = torch.float32

    def __init__(self, job: Train, context: EngineContext):
        self.network = TrainedNetwork(job, context)

    @property
    def members(self) -> Sequence[TrainedNetwork]:
        return (self.network,)

    def update(self, step: int, factor: float) -> Tensor:
        with torch.no_grad():
            for parameter in self.network.parameters.values():
                parameter.mul_(0.5)
        return torch.tensor(1.0)


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelDescription]:
    """A further kernel: one module, and one entry of the list."""
    name = "lotteryfw.engine.kernels.halving"
    module = ModuleType(name)
    description = KernelDescription(
        name="halving",
        revision=3,
        why_not=lambda candidate: None if candidate.job.batch == 16 else "it wants batches of 16",
        gain=lambda candidate: 9.0,
        make=lambda jobs, context: Halving(jobs[0], context),
    )
    vars(module)["KERNEL"] = description
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(KERNEL_LIST, "halving", ("halving",))  # type: ignore[arg-type]
    descriptions.cache_clear()
    yield description
    descriptions.cache_clear()


def test_a_kernel_is_added_by_one_module_and_one_entry(halving: KernelDescription) -> None:
    choose = KernelDispatcher(engine_context())
    job = dense_job(cell(3))
    spec = choose(job, "auto")
    assert spec == choose(job, "halving") == KernelSpec("halving", 3)

    training = run_training(TrainingGroup([replace(job, kernel=spec)], engine_context()))
    for name, value in training.member.state().values.items():
        assert torch.equal(value, job.values[name] / 8)
    assert training.curve["train_loss"][-1] == 1.0
    assert group_key(replace(job, kernel=spec)) is None


def test_a_kernel_that_does_not_apply_is_not_chosen_and_says_why(
    halving: KernelDescription,
) -> None:
    choose = KernelDispatcher(engine_context())
    job = dense_job(cell(3, batch=8))
    assert choose(job, "auto").name != "halving"
    message = "kernel 'halving' cannot train this: it wants batches of 16; use auto or reference"
    with pytest.raises(UsageError, match=message):
        choose(job, "halving")


def test_a_job_that_no_kernel_was_chosen_for_cannot_be_trained() -> None:
    job = replace(dense_job(cell(3)), kernel=KernelSpec("", 0))
    with pytest.raises(LotteryError, match="made for kernel /0; this lotteryfw has reference/2"):
        TrainingGroup([job], engine_context())


def test_the_kernel_of_a_job_survives_a_post() -> None:
    job = replace(dense_job(cell(3)), kernel=kernel("sparse", loops="torch", below=0.2))
    again = from_plain(job.plain(), values=job.values, mask=job.mask, scores=job.scores)
    assert isinstance(again, Train)
    assert again.kernel == job.kernel
    assert again.key == job.key
    other = replace(job, kernel=kernel("sparse", loops="torch", below=0.3))
    assert other.key != job.key
