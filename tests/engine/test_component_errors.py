"""Which errors of a job are a component's, and which pass as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainings import masked_job
from torch import Tensor, nn

from lotteryfw import Objective
from lotteryfw.api.errors import MemoryFull, PluginError, TrainingDiverged, UsageError, naming
from lotteryfw.engine import EngineContext, Stopped, execute
from lotteryfw.engine.component_errors import naming_components
from lotteryfw.engine.training_task import CheckpointRefused
from lotteryfw.registry import Registry
from lotteryfw.store import Store

CONTEXT = EngineContext(Registry(), Path(), "cpu")


class Raises(Objective):
    """Raises what it is given."""

    use = "raises"
    error: Any

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        raise self.error

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs


class Wraps(Raises):
    """Asks another objective, or a module."""

    use = "wraps"
    inner: Any

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        if isinstance(self.inner, nn.Module):
            return self.inner(outputs)
        return self.inner.loss(outputs, inputs, labels, reduction)


class Broken(nn.Module):
    def forward(self, outputs: Tensor) -> Tensor:
        raise ValueError("broken")


def raised(objective: Objective) -> BaseException:
    x = torch.zeros(1)
    with pytest.raises(BaseException) as caught, naming_components(masked_job(1), CONTEXT):
        objective.loss(x, x, x, "mean")
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        TrainingDiverged(3),
        Stopped("stopped"),
        UsageError("no such layer"),
        CheckpointRefused(),
        KeyboardInterrupt(),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_fault_of_a_component_passes(error: BaseException) -> None:
    assert raised(Raises(error=error)) is error


def test_a_full_device_in_a_call_is_no_fault_of_its_component() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError) as caught, naming("criterion 'x'", "scores()"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [MemoryError("9 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_in_a_call_is_no_fault_of_its_component(error: Exception) -> None:
    with pytest.raises(MemoryFull) as caught, naming("criterion 'x'", "scores()"):
        raise error
    assert "the memory is full, in scores() of criterion 'x'" in str(caught.value)
    assert not isinstance(caught.value, PluginError)


def test_the_innermost_component_is_named() -> None:
    inner = Raises(error=ValueError("wrong"))
    named = raised(Wraps(error=None, inner=inner))
    assert isinstance(named, PluginError)
    assert str(named) == "objective 'raises' broke in loss(): ValueError: wrong"


def test_a_module_that_a_component_calls_is_a_part_of_it() -> None:
    named = raised(Wraps(error=None, inner=Broken()))
    assert str(named) == "objective 'wraps' broke in loss(): ValueError: broken"


def test_a_network_that_the_engine_calls_is_the_models() -> None:
    spec = masked_job(1).model
    with pytest.raises(PluginError) as caught, naming_components(masked_job(1), CONTEXT):
        Broken()(torch.zeros(1))
    who = f"model '{spec.use}' of {spec.provider}"
    assert str(caught.value) == f"{who} broke in forward(): ValueError: broken"


def test_an_error_of_nobody_passes() -> None:
    error = ValueError("the engine's own")
    with (
        pytest.raises(ValueError, match="own") as caught,
        naming_components(masked_job(1), CONTEXT),
    ):
        raise error
    assert caught.value is error


def test_no_jobs_are_nothing_to_do(tmp_path: Path) -> None:
    execute([], Store(tmp_path), CONTEXT, lambda done, of: False, lambda key, warning: None)
