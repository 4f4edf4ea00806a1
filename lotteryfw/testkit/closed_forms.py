"""The part of the trial of parametrizations that compares a closed form with the methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import MaskedLayer, MaskedNetwork
from lotteryfw.testkit.component_trial import ComponentTrial

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("", "top_k", "top_k_magnitude")
DEFAULTS = (
    "trains_weights",
    "score_shape",
    "factors",
    "penalty",
    "noise",
    "expected",
    "draws",
    "after_step",
)
"""What a parametrization with a closed form leaves as it is: kernels do not look at it."""


def try_closed_form(
    trial: ComponentTrial,
    net: MaskedNetwork,
    masks: Mapping[str, Tensor],
    sampled: Mapping[str, Tensor],
    name: str,
) -> None:
    """Require that `masks`, `sampled` and `weight` follow a closed form, and the rest is default.

    `masks` and `sampled` are what the methods of this name returned for the network.
    """
    form = trial.call("closed_form", on=name)
    trial.require(form in FORMS, f"closed_form() returned {form!r}, not one of {FORMS}")
    if not form:
        return
    said = f"closed_form() is '{form}'"
    for member in DEFAULTS:
        is_default = getattr(type(trial.component), member) is getattr(Parametrization, member)
        trial.require(is_default, f"{said}, but {member} is not the default")
    expected = _top_k_masks(net, form)
    for layer_name, edges in net.edges.items():
        on = f"{layer_name} of {name}"
        for method, found in (("masks", masks), ("sampled", sampled)):
            is_equal = bool((found[layer_name] == expected[layer_name]).all())
            trial.require(is_equal, f"{said}, but {method}() on {on} keeps other edges")
        _try_weight(trial, edges, expected[layer_name], form, on)


def _ranks(scores: Tensor, form: str) -> Tensor:
    return scores.abs() if form == "top_k_magnitude" else scores


def _top_k_masks(net: MaskedNetwork, form: str) -> dict[str, Tensor]:
    """Return the masks by a stable sort of the ranks in each budget."""
    import torch

    masks = {name: edges.allowed for name, edges in net.edges.items()}
    for group in net.budgets:
        edges = [net.edges[name] for name in group.layers]
        allowed = torch.cat([layer.allowed.flatten() for layer in edges])
        ranks = torch.cat([_ranks(layer.scores, form).flatten() for layer in edges])
        order = ranks.masked_fill(~allowed, -inf).argsort(descending=True, stable=True)
        kept = torch.zeros_like(allowed)
        kept[order[: min(group.keep, int(allowed.sum()))]] = True
        parts = torch.split(kept, [layer.info.size for layer in edges])
        for layer, part in zip(edges, parts, strict=True):
            masks[layer.info.name] = part.view(layer.info.shape)
    return masks


def _try_weight(
    trial: ComponentTrial, edges: MaskedLayer, mask: Tensor, form: str, on: str
) -> None:
    """Require w · mask, and a gradient that goes straight through the mask."""
    import torch

    scores = edges.scores.clone().requires_grad_()
    weight = trial.call("weight", replace(edges, scores=scores), mask, on=on)
    is_masked = torch.equal(weight.detach(), edges.weights * mask)
    said = f"closed_form() is '{form}', but weight() on {on}"
    trial.require(is_masked, f"{said} is not the weights under the mask")
    # Slopes of both signs, no two alike.
    slopes = torch.linspace(-1.0, 2.0, weight.numel()).view(weight.shape)
    (found,) = torch.autograd.grad(weight, scores, slopes, retain_graph=True)
    (expected,) = torch.autograd.grad(_ranks(scores, form), scores, slopes * edges.weights)
    is_close = torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
    trial.require(is_close, f"{said} does not pass the mask's gradient straight to the scores")
