"""Measuring a network: its loss and accuracy over a part of the data, and the gradient over all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Objective
from lotteryfw.api.layers import SCORES
from lotteryfw.engine.feed import Feed
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Gradient

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def measure(
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    feed: Feed,
    part: str,
    objective: Objective,
) -> tuple[float, float]:
    """Mean loss and accuracy in [0, 1] of `values` over every example of a part of the data."""
    loss, correct = totals(module, values, feed, part, objective).tolist()
    examples = len(feed.raw(part)[1])
    return loss / examples, correct / examples


def totals(
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    feed: Feed,
    part: str,
    objective: Objective,
) -> Tensor:
    """[2] float64 on the device: the sum of the losses over every example of a part, and how many it has right."""
    import torch
    from torch.func import functional_call

    module.eval()
    device = next(iter(values.values())).device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for inputs, labels in feed.sweep(part):
            outputs = functional_call(module, dict(values), (inputs,))
            loss += objective.loss(outputs, inputs, labels, "sum")
            right += objective.correct(outputs, inputs, labels).sum(dtype=torch.float64)
    return torch.stack([loss, right])


def placed(module: torch.nn.Module, values: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Copies on the device of the values of a network's parameters and buffers. One that the network uses in several
    places is taken by its first name alone, for that is what `functional_call` then puts into all of them. Scores are
    copied, too."""
    own = {
        name
        for tensors in (module.named_parameters(), module.named_buffers())
        for name, _ in tensors
    }
    wanted = {
        name: value for name, value in values.items() if name in own or name.startswith(SCORES)
    }
    return {name: value.to(device, copy=True) for name, value in wanted.items()}


def gradient(job: Gradient, shop: Workshop) -> dict[str, Tensor]:
    """The gradient of the mean training loss, for every layer, over the whole training set in the training mode."""
    import torch
    from torch.func import functional_call

    feed = shop.feed_of(job)
    module = shop.network(job.model, feed, job.objective).train()
    objective: Objective = shop.component(job.objective)
    values = placed(module, job.values, shop.device)
    layers = {name: values[name].requires_grad_() for name in job.mask}
    total = {name: torch.zeros_like(layer) for name, layer in layers.items()}
    for inputs, labels in feed.sweep("train", job.batch):
        loss = (
            objective.loss(functional_call(module, values, (inputs,)), inputs, labels, "sum")
            / feed.examples
        )
        for name, slope in zip(
            layers, torch.autograd.grad(loss, list(layers.values())), strict=True
        ):
            total[name] += slope
    return total
