"""Loss and accuracy of a network over a part of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lotteryfw.api.kinds import Objective
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.component_errors import WrongResult, described
from lotteryfw.engine.device_dataset import DeviceDataset

FLOAT32 = Arithmetic()


class Observer(Protocol):
    """Measures more of the batches of an evaluation than loss and accuracy."""

    def observe(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> None:
        """Measure a batch, without waiting for the device."""
        ...


def evaluate(
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    dataset: DeviceDataset,
    part: str,
    objective: Objective,
    arithmetic: Arithmetic = FLOAT32,
) -> tuple[float, float]:
    """Return mean loss and accuracy in [0, 1] over every example of a part of the data."""
    sums = summed_metrics(module, values, dataset, part, objective, arithmetic)
    return means(sums, dataset, part)


def means(sums: Tensor, dataset: DeviceDataset, part: str) -> tuple[float, float]:
    """Return mean loss and accuracy over a part of the data, of the sums [2]."""
    loss, correct = sums.tolist()
    examples = len(dataset.labels(part))
    return loss / examples, correct / examples


def summed_metrics(
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    dataset: DeviceDataset,
    part: str,
    objective: Objective,
    arithmetic: Arithmetic = FLOAT32,
    observers: Sequence[Observer] = (),
) -> Tensor:
    """Return the sum of the losses over a part of the data, and how many examples are correct.

    The result is [2] float64 on the device, so that it does not wait for the device. Every batch
    is shown to the `observers`.
    """
    module.eval()
    device = next(iter(values.values())).device
    # Sums over ten thousand examples lose digits in float32.
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for inputs, labels in dataset.batches(part):
            outputs = arithmetic.outputs(module, values, inputs)
            loss += checked_loss(objective, objective.loss(outputs, inputs, labels, "sum"))
            degrees = objective.correct(outputs, inputs, labels)
            _check_correct(objective, degrees, len(labels))
            correct += degrees.sum(dtype=torch.float64)
            for observer in observers:
                observer.observe(outputs, inputs, labels)
    return torch.stack([loss, correct])


def checked_loss(objective: Objective, loss: object, method: str = "loss") -> Tensor:
    """Return a loss of an objective: 0-d, floating point. Raises WrongResult for anything else.

    Its value is not looked at, since that would wait for the device at every step.
    """
    if isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point():
        return loss
    raise WrongResult(
        objective,
        f"{method}() returned {described(loss)}; it must return a 0-d floating-point tensor, the "
        "mean or sum over the batch",
    )


def _check_correct(objective: Objective, correct: object, examples: int) -> None:
    """Raise WrongResult for anything but a tensor of one value for each example."""
    if isinstance(correct, Tensor) and correct.shape == (examples,):
        return
    raise WrongResult(
        objective,
        f"correct() returned {described(correct)}; it must return a tensor of shape [{examples}], "
        "a value for each example",
    )


def to_device(module: torch.nn.Module, state: NetworkState, device: str) -> NetworkState:
    """Return copies of a network's parameters, buffers and scores on the device.

    A parameter that the network uses in several places is taken by its first name alone, since
    `functional_call` then puts it into all of them.
    """
    names = [name for name, _ in module.named_parameters()]
    names += [name for name, _ in module.named_buffers()]
    first_names = set(names)

    values = {}
    for name, value in state.values.items():
        if name in first_names:
            values[name] = value.to(device, copy=True)
    scores = {name: value.to(device, copy=True) for name, value in state.scores.items()}
    return NetworkState(values, scores=scores)
