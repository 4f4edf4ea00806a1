"""The scores against independent restatements with autograd, on a small convolutional network."""

from __future__ import annotations

import copy

import pytest
import torch
from lotteryfw_pai import GraSP, Snip, SynFlow, register_components
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lotteryfw import Probe
from lotteryfw.testkit import make_probe, small_conv_net


def half_masks(seed: int = 1) -> dict[str, Tensor]:
    """A mask of about half of the weights of the small network."""
    rng = torch.Generator().manual_seed(seed)
    masks = {}
    for name, value in small_conv_net().named_parameters():
        if value.dim() > 1:
            masks[name] = torch.rand(value.shape, generator=rng) < 0.5
    return masks


def module_of(probe: Probe) -> nn.Module:
    """An ordinary module with the tensors of a probe: what a plain loop would work with."""
    module = copy.deepcopy(small_conv_net())
    module.load_state_dict(dict(probe.tensors))
    return module.train()


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in module.named_parameters() if value.dim() > 1}


@pytest.fixture(params=["dense", "half"])
def probe(request: pytest.FixtureRequest) -> Probe:
    return make_probe(masks=half_masks() if request.param == "half" else None)


@pytest.mark.parametrize("batches", [1, 3])
def test_snip_is_the_sensitivity_to_the_connections(probe: Probe, batches: int) -> None:
    """The paper's definition: the derivative by indicators c that multiply the weights, at c = 1."""
    module = module_of(probe)
    total = {name: torch.zeros_like(value) for name, value in weights_of(module).items()}
    for inputs, labels in probe.batches("train", batches, 32):
        indicators = {
            name: torch.ones_like(value).requires_grad_() for name, value in total.items()
        }
        masked = {
            name: value.detach() * indicators[name] for name, value in weights_of(module).items()
        }
        outputs = torch.func.functional_call(module, masked, (inputs,))
        slopes = torch.autograd.grad(cross_entropy(outputs, labels), list(indicators.values()))
        for name, slope in zip(indicators, slopes, strict=True):
            total[name] += slope
    scores = Snip(batches=batches, batch=32).scores(probe)
    assert scores.keys() == total.keys()
    for name, sensitivity in total.items():
        torch.testing.assert_close(scores[name], sensitivity.abs(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("batches", [1, 2])
def test_grasp_is_the_weight_times_the_hessian_times_the_gradient(
    probe: Probe, batches: int
) -> None:
    """The Hessian-vector product by central differences of gradients, in float64: no double backward."""
    batch = list(probe.batches("train", batches, 20))
    module = module_of(probe).double()
    weights = weights_of(module)

    def gradient() -> list[Tensor]:
        total = [torch.zeros_like(value) for value in weights.values()]
        for inputs, labels in batch:
            loss = cross_entropy(module(inputs.double()) / 200.0, labels)
            slopes = torch.autograd.grad(loss, list(weights.values()))
            total = [old + slope for old, slope in zip(total, slopes, strict=True)]
        return total

    direction = gradient()
    shift = 1e-7 / max(float(part.abs().max()) for part in direction)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for value, part in zip(weights.values(), direction, strict=True):
                value.add_(part, alpha=sign * shift)
        ends.append(gradient())
        with torch.no_grad():
            for value, part in zip(weights.values(), direction, strict=True):
                value.sub_(part, alpha=sign * shift)
    scores = GraSP(batches=batches, batch=20).scores(probe)
    for (name, value), above, below in zip(weights.items(), *ends, strict=True):
        expected = value.detach() * (above - below) / (2 * shift)
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            scores[name].double() / scale, expected / scale, rtol=1e-3, atol=2e-4
        )


def test_synflow_needs_no_data_and_is_the_flow_through_each_weight(probe: Probe) -> None:
    module = module_of(probe).double().eval()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.abs_()
    module(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().backward()
    scores = SynFlow().scores(probe)
    for name, value in weights_of(module).items():
        assert value.grad is not None
        torch.testing.assert_close(scores[name], value.grad * value.detach(), rtol=1e-9, atol=0)


def test_synflow_is_conserved_layer_by_layer(probe: Probe) -> None:
    """Tanaka et al., theorem 1: without biases, every layer's scores sum to the same flow."""
    sums = [float(score.sum()) for score in SynFlow().scores(probe).values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-9)
    assert sums[0] > 0


@pytest.mark.parametrize("criterion", [Snip(batch=32), GraSP(batch=20), SynFlow()])
def test_scores_repeat_and_leave_the_network_alone(criterion: Snip | GraSP | SynFlow) -> None:
    probe = make_probe()
    before = {name: value.clone() for name, value in probe.tensors.items()}
    first, second = criterion.scores(probe), criterion.scores(probe)
    for name, score in first.items():
        assert torch.equal(score, second[name])
        assert not score.requires_grad
        assert torch.isfinite(score).all()
    for name, value in before.items():
        assert torch.equal(probe.tensors[name], value)


def test_the_plugin_registers_its_criteria() -> None:
    assert register_components() == [Snip, GraSP, SynFlow]
