"""Parts of trials that compare a closed form with the methods it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import MaskedLayer, MaskedNetwork
from lotteryfw.testkit.component_trial import ComponentTrial

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_OVERRIDABLE = {
    "top_k": ("refresh",),
    "top_k_magnitude": ("refresh",),
    "bernoulli": ("noise", "expected", "draws"),
    "bernoulli_dynamic": ("noise", "expected", "draws"),
}
"""By form, the methods with a default that a parametrization of this form may have its own of."""
FORMS = ("", *_OVERRIDABLE)
_DEFAULTS = (
    "trains_weights",
    "score_shape",
    "factors",
    "penalty",
    "noise",
    "expected",
    "draws",
    "refresh",
    "after_step",
)
"""What kernels do not look at unless the form says so."""
OBJECTIVE_FORMS = ("", "cross_entropy")


def try_objective_form(
    trial: ComponentTrial, outputs: Tensor, inputs: Tensor, labels: Tensor
) -> None:
    """Require that loss, gradient and `correct` of a batch are those of an objective's closed form."""
    import torch
    from torch.nn.functional import cross_entropy

    form = trial.call("closed_form", on="its options")
    is_form = form in OBJECTIVE_FORMS
    trial.require(is_form, f"closed_form() returned {form!r}, not one of {OBJECTIVE_FORMS}")
    if not form:
        return
    claim = f"closed_form() is '{form}'"
    are_classes = labels.dtype == torch.int64 and labels.dim() == 1
    trial.require(are_classes, f"{claim}, but it does not read one class for each example")
    leaf = outputs.clone().requires_grad_()
    for reduction in ("mean", "sum"):
        loss = trial.call("loss", leaf, inputs, labels, reduction, on="a batch")
        expected = cross_entropy(leaf, labels, reduction=reduction)
        trial.require(
            torch.allclose(loss, expected, rtol=1e-5, atol=1e-6),
            f'{claim}, but loss(…, "{reduction}") is {loss.item()}, and the cross-entropy is '
            f"{expected.item()}",
        )
        # a loss may add what has the value 0 and a gradient
        (gradient,) = torch.autograd.grad(loss, leaf)
        (plain,) = torch.autograd.grad(expected, leaf)
        trial.require(
            torch.allclose(gradient, plain, rtol=1e-4, atol=1e-6),
            f'{claim}, but the gradient of loss(…, "{reduction}") is not that of cross-entropy',
        )
    correct = trial.call("correct", outputs, inputs, labels, on="a batch")
    trial.require(
        torch.equal(correct.float(), (outputs.argmax(1) == labels).float()),
        f"{claim}, but correct() is not True where the largest logit is the label's",
    )


def try_closed_form(
    trial: ComponentTrial,
    net: MaskedNetwork,
    masks: Mapping[str, Tensor],
    sampled: Mapping[str, Tensor],
    draw: Callable[[], torch.Generator],
    progress: float,
    name: str,
) -> None:
    """Require that a parametrization follows its closed form, and the rest is default.

    `masks` and `sampled` are what the methods of this name returned for the network; `draw` returns
    the random stream that `sampled` got, at its start. `progress` is that of the step, in which
    weights must be those of an evaluation.
    """
    form = trial.call("closed_form", on=name)
    trial.require(form in FORMS, f"closed_form() returned {form!r}, not one of {FORMS}")
    if not form:
        return
    said = f"closed_form() is '{form}'"
    for member in _DEFAULTS:
        if member not in _OVERRIDABLE[form]:
            is_default = getattr(type(trial.component), member) is getattr(Parametrization, member)
            trial.require(is_default, f"{said}, but {member} is not the default")
    if form.startswith("top_k"):
        learned = drawn = _top_k_masks(net, form)
    else:
        learned, drawn = _likely_masks(net), _drawn_masks(net, draw())
    for layer_name, edges in net.edges.items():
        on = f"{layer_name} of {name}"
        for method, found, expected in (("masks", masks, learned), ("sampled", sampled, drawn)):
            is_equal = bool((found[layer_name] == expected[layer_name]).all())
            trial.require(is_equal, f"{said}, but {method}() on {on} keeps other edges")
        in_a_step = replace(edges, progress=progress)
        _try_weight(trial, edges, drawn[layer_name], form, on)
        _try_weight(trial, in_a_step, drawn[layer_name], form, f"{on} at progress {progress:.2f}")


def _likely_masks(net: MaskedNetwork) -> dict[str, Tensor]:
    """Return the masks of the edges that are more likely in than out."""
    masks = {}
    for name, edges in net.edges.items():
        masks[name] = (edges.scores > 0) & edges.allowed
    return masks


def _drawn_masks(net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
    """Return the masks of edges that are drawn with the sigmoids of their scores."""
    import torch

    masks = {}
    for name, edges in net.edges.items():
        noise = torch.rand(edges.info.shape, generator=rng)
        masks[name] = (noise < edges.scores.sigmoid()) & edges.allowed
    return masks


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


def _masked_weight(weights: Tensor, taking_part: Tensor, form: str) -> Tensor:
    """Return what a layer computes with, in terms of its mask as numbers [s] of 0 and 1."""
    weight = weights * taking_part
    if form == "bernoulli_dynamic":
        # A bound below 1 concerns empty masks alone.
        return weight * (weights.numel() / taking_part.sum().clamp(min=0.5))
    return weight


def _mask_gradient_source(scores: Tensor, form: str) -> Tensor:
    """Return what the gradient of the mask, as numbers, is passed straight to."""
    return scores.sigmoid() if form.startswith("bernoulli") else _ranks(scores, form)


def _try_weight(
    trial: ComponentTrial, edges: MaskedLayer, mask: Tensor, form: str, on: str
) -> None:
    """Require the weights under the mask, and a gradient that goes straight through it."""
    import torch

    scores = edges.scores.clone().requires_grad_()
    weight = trial.call("weight", replace(edges, scores=scores), mask, on=on)
    taking_part = mask.float().requires_grad_()
    masked = _masked_weight(edges.weights, taking_part, form)
    is_masked = torch.allclose(weight.detach(), masked.detach(), rtol=1e-6, atol=0)
    said = f"closed_form() is '{form}', but weight() on {on}"
    trial.require(is_masked, f"{said} is not the weights under the mask")
    # Slopes of both signs, no two alike.
    slopes = torch.linspace(-1.0, 2.0, weight.numel()).view(weight.shape)
    (found,) = torch.autograd.grad(weight, scores, slopes, retain_graph=True)
    # First to the mask as numbers, which may have a factor's gradient, and from there on.
    (of_mask,) = torch.autograd.grad(masked, taking_part, slopes)
    (expected,) = torch.autograd.grad(_mask_gradient_source(scores, form), scores, of_mask)
    is_close = torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    trial.require(is_close, f"{said} does not pass the mask's gradient straight to the scores")
