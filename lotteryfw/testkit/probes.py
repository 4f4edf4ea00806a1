"""A probe over a small network and made-up examples, for trials and tests of network criteria."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.api.kinds import Objective
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.probe import Probe
from lotteryfw.api.rng import stream
from lotteryfw.testkit.component_trial import ComponentTrial

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPE = (3, 8, 8)
CLASSES = 5
EXAMPLES = 300


def small_conv_net(seed: int = 0) -> nn.Module:
    """Return two convolutions, one with batch normalisation, and a linear layer for [3, 8, 8]."""
    import torch
    from torch import nn

    rng = stream(seed, "testkit", "small conv net")
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.dim() > 1:
                fan_in = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=rng) * (2 / fan_in) ** 0.5)
            elif name.endswith("bias"):
                value.zero_()
    return net


def make_probe(
    module: nn.Module | None = None, masks: dict[str, Tensor] | None = None, *, seed: int = 0
) -> Probe:
    """A probe on the CPU: of `module`, or of a small convolutional network, over made-up images.

    `masks` [s] bool by layer: weights where they are False are zero. Left out: all are alive.
    `module` takes inputs [n, 3, 8, 8] and has 5 outputs; its parameters of two dimensions or more are prunable.
    """
    import torch

    from lotteryfw.engine.device_dataset import DeviceDataset
    from lotteryfw.engine.probe import NetworkProbe

    module = small_conv_net(seed) if module is None else module
    # copies: a probe must leave the network that it is of as it is
    tensors = {}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        tensors[name] = value.detach().clone()
    matrices = filter(lambda named: named[1].dim() > 1, module.named_parameters())
    names = list(dict(matrices))
    layers = []
    for name in names:
        # the last layer of a network gives its outputs
        layers.append(LayerInfo(name, tuple(tensors[name].shape), is_output=name == names[-1]))
    if masks is None:
        masks = {name: torch.ones_like(tensors[name], dtype=torch.bool) for name in names}
    for name, mask in masks.items():
        # masked weights are frozen at 0, as with the mask-0 action `zero`
        tensors[name] *= mask
    data = DeviceDataset(_examples(), _INFO, "cpu")
    labels = (seed, "testkit")
    return NetworkProbe(module, tensors, masks, tuple(layers), data, _CrossEntropy(), labels)


def try_network_scores(trial: ComponentTrial) -> None:
    """Require scores of every layer that repeat, are finite for living weights, and change nothing.

    They are asked for over a whole network, over one that is half pruned, and over one with a layer
    of which nothing is left.
    """
    cls = type(trial.component)
    trial.require(
        hasattr(trial.component, "scores"),
        "it needs a probe and has no scores(probe); derive it from lotteryfw.NetworkCriterion",
    )
    for on, masks in _masks().items():
        # two probes of one network: what draws from its streams alone gives the same again
        scores = _scores_of(trial, make_probe(masks=masks), on)
        again = _scores_of(trial, make_probe(masks=masks), on)
        for name, score in scores.items():
            trial.require(
                _same_bits(score, again[name]),
                f"scores() on {on} gave two results for layer {name} from equal probes; "
                f"{cls.__name__} must draw from `probe.rng` and `probe.batches` only",
            )


def _scores_of(trial: ComponentTrial, probe: Probe, on: str) -> dict[str, Tensor]:
    """Return the scores of a probe, checked as the engine checks them."""
    from lotteryfw.engine.probe_job import checked_scores
    from lotteryfw.search.jobs import Spec

    copies = {}
    for name, value in probe.tensors.items():
        copies[name] = value.clone()
    scores = trial.call("scores", probe, on=on)
    for name, value in probe.tensors.items():
        trial.require(
            _same_bits(value, copies[name]),
            f"scores() on {on} changed `{name}` of the network, which it is shown to read only",
        )
    component = trial.component
    spec = Spec(component.kind, component.use, f"its trial, on {on}", {})
    return checked_scores(spec, scores, probe.layers, probe.masks)


def _masks() -> dict[str, dict[str, Tensor]]:
    import torch

    whole, half, collapsed = {}, {}, {}
    for layer in make_probe().layers:
        alive = torch.ones(layer.shape, dtype=torch.bool)
        whole[layer.name] = alive
        rng = stream("testkit", "half of a network", layer.name)
        half[layer.name] = torch.rand(layer.shape, generator=rng) < 0.5
        collapsed[layer.name] = alive
    # budgets and norms of a layer without weights are where sums become 0
    middle = list(collapsed)[1]
    collapsed[middle] = torch.zeros_like(collapsed[middle])
    return {
        "a whole network": whole,
        "a network that is half pruned": half,
        "a network with a collapsed layer": collapsed,
    }


def _same_bits(one: Tensor, other: Tensor) -> bool:
    import torch

    # NaN may stand where nothing is read
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


_INFO = DatasetInfo(shape=SHAPE, classes=CLASSES, train=EXAMPLES, validation=50, test=50)


def _examples() -> Dataset:
    import torch

    def subset(part: str, count: int) -> Subset:
        rng = stream("testkit", "examples", part)
        inputs = torch.randn((count, *SHAPE), generator=rng)
        return Subset(inputs, torch.randint(CLASSES, (count,), generator=rng))

    train, validation = subset("train", EXAMPLES), subset("validation", 50)
    return Dataset(train, validation, subset("test", 50), (0.0,), (1.0,))


class _CrossEntropy(Objective):
    use = "cross_entropy"

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction=reduction)

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(1) == labels
