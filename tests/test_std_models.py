from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lotteryfw.errors import LotteryError
from lotteryfw.kinds import Initialiser, ModelFamily
from lotteryfw.rng import stream
from lotteryfw.std import initialisers
from lotteryfw.std.models import Conv2, Conv4, Conv6, LeNet300100, Mlp
from lotteryfw.views import Layer

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("family", "shape", "parameters"),
    [
        (LeNet300100(), MNIST, 266_610),
        (Mlp(), MNIST, 266_610),
        (Mlp(bias=False), MNIST, 266_200),
        (Mlp(hidden=[]), MNIST, 7850),
        (Conv2(), CIFAR, 4_301_642),
        (Conv4(), CIFAR, 2_425_930),
        (Conv6(), CIFAR, 2_262_602),
    ],
    ids=lambda value: getattr(value, "use", None),
)
def test_parameter_counts_are_the_papers(family: ModelFamily, shape: tuple[int, ...], parameters: int) -> None:
    module = family.build(shape, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert module(torch.zeros(2, *shape)).shape == (2, 10)


def test_layers_have_readable_names_and_the_output_comes_last() -> None:
    names = Conv4().prunable(Conv4().build(CIFAR, 10))
    assert names == [f"{layer}.weight" for layer in ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "fc3")]
    assert Mlp(hidden=[7]).prunable(Mlp(hidden=[7]).build((5,), 3)) == ["fc1.weight", "fc2.weight"]


def test_mlp_is_its_formula() -> None:
    module = Mlp(hidden=[7, 6]).build((2, 3), 4)
    images = torch.randn(5, 2, 3)
    weights = dict(module.named_parameters())
    expected = images.flatten(1)
    for layer in ("fc1", "fc2", "fc3"):
        expected = expected @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        expected = expected.clamp(min=0) if layer != "fc3" else expected
    torch.testing.assert_close(module(images), expected)


def test_conv_layers_are_followed_by_relu_and_pairs_by_a_pooling() -> None:
    kinds = [type(part) for part in Conv4().build(CIFAR, 10)]
    pair = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert kinds == [*pair, *pair, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(("family", "shape"), [(Conv2(), (784,)), (Conv6(), (1, 7, 28))])
def test_unfit_inputs_are_refused_in_words(family: ModelFamily, shape: tuple[int, ...]) -> None:
    with pytest.raises(LotteryError, match=f"{family.use} reads images"):
        family.build(shape, 10)


def test_odd_sizes_fit() -> None:
    assert Conv6().build((1, 9, 11), 3)(torch.zeros(1, 1, 9, 11)).shape == (1, 3)


def test_widths_are_positive() -> None:
    with pytest.raises(ValidationError):
        Mlp(hidden=[300, 0])


# initialisers: against torch.nn.init on the same shape


def named(value: object) -> str:
    return f"{value.use}-{getattr(value, 'mode', '')}" if isinstance(value, Initialiser) else "torch"


CONV, DENSE = Layer("conv", (96, 64, 3, 3)), Layer("fc", (300, 784))
REFERENCE = [
    (initialisers.GlorotNormal(), nn.init.xavier_normal_),
    (initialisers.GlorotUniform(), nn.init.xavier_uniform_),
    (initialisers.KaimingNormal(), lambda t: nn.init.kaiming_normal_(t, nonlinearity="relu")),
    (initialisers.KaimingNormal(mode="fan_out"), lambda t: nn.init.kaiming_normal_(t, mode="fan_out")),
    (initialisers.KaimingUniform(), lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu")),
    (initialisers.KaimingUniform(mode="fan_out"), lambda t: nn.init.kaiming_uniform_(t, mode="fan_out")),
    (initialisers.PytorchDefault(), lambda t: nn.init.kaiming_uniform_(t, a=5**0.5)),
]


@pytest.mark.parametrize(("initialiser", "reference"), REFERENCE, ids=named)
@pytest.mark.parametrize("layer", [CONV, DENSE], ids=lambda layer: layer.name)
def test_distribution_is_torchs(initialiser: Initialiser, reference: Callable[[Tensor], Tensor], layer: Layer) -> None:
    ours = initialiser.weight(layer, stream(0, "test")).flatten().numpy()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = reference(torch.empty(layer.shape)).flatten().numpy()
    assert ours.dtype == np.float32
    assert abs(ours.mean()) < 5 * theirs.std() / np.sqrt(ours.size)
    quantiles = np.linspace(0.001, 0.999, 41)
    np.testing.assert_allclose(
        np.quantile(ours, quantiles), np.quantile(theirs, quantiles), rtol=0.03, atol=0.03 * theirs.std()
    )
    if "uniform" in initialiser.use or initialiser.use == "pytorch_default":
        assert abs(np.abs(ours).max() / np.abs(theirs).max() - 1) < 1e-3


def test_signed_constant_is_one_magnitude_with_both_signs() -> None:
    drawn = initialisers.SignedConstant().weight(CONV, stream(0, "test"))
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.abs(), torch.full(CONV.shape, (2 / (64 * 9)) ** 0.5))
    assert abs(float((drawn > 0).double().mean()) - 0.5) < 0.02


ALL = [*(initialiser for initialiser, _ in REFERENCE), initialisers.SignedConstant()]


@pytest.mark.parametrize("initialiser", ALL, ids=named)
def test_draws_come_from_the_given_stream_alone(initialiser: Initialiser) -> None:
    draws = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        draws.append((initialiser.weight(CONV, stream(7, "test")), initialiser.bias(CONV, stream(8, "test"))))
    assert all(first.equal(second) for first, second in zip(*draws, strict=True))
    assert not initialiser.weight(CONV, stream(9, "test")).equal(draws[0][0])


def test_biases_are_zero_except_pytorchs() -> None:
    for initialiser in ALL:
        bias = initialiser.bias(DENSE, stream(0, "bias"))
        assert bias.shape == (300,)
        if initialiser.use == "pytorch_default":
            assert 0.9 / 28 < bias.abs().max() <= 1 / 28
        else:
            assert not bias.any()
