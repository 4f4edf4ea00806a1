from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lotteryfw.api.errors import LotteryError
from lotteryfw.api.kinds import Initialiser, ModelFamily
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import stream
from lotteryfw.std import initialisers
from lotteryfw.std.models import (
    Conv2,
    Conv4,
    Conv6,
    Conv8,
    LeNet300100,
    Mlp,
    Vgg11,
    Vgg13,
    Vgg16,
    Vgg19,
)
from lotteryfw.std.resnets import (
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet44,
    ResNet56,
    ResNet110,
    WideResNet,
)
from lotteryfw.std.torchvision_models import TorchvisionModel

MNIST, CIFAR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)
CLASSES = {MNIST: 10, CIFAR: 10, IMAGENET: 1000}


@pytest.mark.parametrize(
    ("family", "shape", "parameters"),
    [
        (LeNet300100(), MNIST, 266_610),
        (LeNet300100(bias=False), MNIST, 266_200),
        (Mlp(), MNIST, 266_610),
        (Mlp(bias=False), MNIST, 266_200),
        (Mlp(hidden=[]), MNIST, 7850),
        (Conv2(), CIFAR, 4_301_642),
        (Conv4(), CIFAR, 2_425_930),
        (Conv6(), CIFAR, 2_262_602),
        (Conv8(), CIFAR, 5_278_282),
        (Conv8(bias=False), CIFAR, 5_275_840),
        (Vgg11(), CIFAR, 9_228_362),
        (Vgg13(), CIFAR, 9_413_066),
        (Vgg16(), CIFAR, 14_724_042),
        (Vgg19(), CIFAR, 20_035_018),
        (ResNet20(), CIFAR, 272_474),
        (ResNet32(), CIFAR, 466_906),
        (ResNet44(), CIFAR, 661_338),
        (ResNet56(), CIFAR, 855_770),
        (ResNet110(), CIFAR, 1_730_714),
        (ResNet34(), CIFAR, 21_282_122),
        (ResNet18(), CIFAR, 11_173_962),
        (ResNet18(affine=False, bias=False), CIFAR, 11_164_352),
        (WideResNet(), CIFAR, 36_479_194),
        (WideResNet(depth=16, widen=8), CIFAR, 10_961_370),
        (WideResNet(depth=40, widen=4), CIFAR, 8_949_210),
        (TorchvisionModel(name="resnet18"), IMAGENET, 11_689_512),
        (TorchvisionModel(name="resnet34"), IMAGENET, 21_797_672),
        (TorchvisionModel(), IMAGENET, 25_557_032),
        (TorchvisionModel(affine=False, bias=False), IMAGENET, 25_502_912),
        (TorchvisionModel(name="resnet101"), IMAGENET, 44_549_160),
        (TorchvisionModel(name="wide_resnet50_2"), IMAGENET, 68_883_240),
    ],
    ids=lambda value: f"{value.use} {value.options()}" if isinstance(value, ModelFamily) else None,
)
def test_parameter_counts_are_the_papers(
    family: ModelFamily, shape: tuple[int, ...], parameters: int
) -> None:
    with torch.device("meta"):  # sizes without memory or time
        module = family.build(shape, CLASSES[shape])
        assert module.eval()(torch.zeros(2, *shape)).shape == (2, CLASSES[shape])
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    weights = dict(module.named_parameters())
    assert weights[family.prunable(module)[-1]].shape[0] == CLASSES[shape]


NORMALISED = [
    Vgg16(width=0.05, affine=False, bias=False),
    ResNet20(width=0.25, affine=False, bias=False),
    ResNet18(width=0.05, affine=False, bias=False),
    WideResNet(depth=10, widen=1, affine=False, bias=False),
    TorchvisionModel(name="resnet18", affine=False, bias=False),
]


@pytest.mark.parametrize("family", NORMALISED, ids=lambda family: family.use)
def test_without_affine_and_bias_only_prunable_weights_are_left(family: ModelFamily) -> None:
    module = family.build(CIFAR, 10)
    assert {name for name, _ in module.named_parameters()} == set(family.prunable(module))
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_parameters()  # as the engine does
    assert norms
    out = module(torch.rand(4, *CIFAR))
    assert out.shape == (4, 10)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    "family",
    [Vgg11(width=0.1), ResNet20(width=0.5), WideResNet(depth=10, widen=1)],
    ids=lambda family: family.use,
)
def test_batch_norm_may_start_with_drawn_scales(family: ModelFamily) -> None:
    """In training they start from `reset_parameters`, which draws under the cell's seed."""
    drawn = type(family).model_validate({**family.options(), "norm_scale": "uniform"})
    for norm in drawn.build(CIFAR, 10).modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert 0 <= norm.weight.min() < norm.weight.max() <= 1
            assert not norm.bias.any()
    for norm in family.build(CIFAR, 10).modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert torch.equal(norm.weight, torch.ones_like(norm.weight))


@pytest.mark.parametrize(
    "family", [Conv2(width=0.25), Conv8(width=0.25), Vgg19(width=0.25), ResNet18(width=0.25)]
)
def test_width_scales_every_layer_but_the_output(family: ModelFamily) -> None:
    with torch.device("meta"):
        narrow, whole = (each.build(CIFAR, 10) for each in (family, type(family)()))
    pairs = list(zip(family.prunable(narrow), family.prunable(whole), strict=True))
    assert all(narrower == wider for narrower, wider in pairs)
    sizes = [
        [len(dict(net.named_parameters())[name]) for name, _ in pairs] for net in (narrow, whole)
    ]
    assert [4 * size for size in sizes[0][:-1]] == sizes[1][:-1]
    assert sizes[0][-1] == sizes[1][-1] == 10


def test_no_layer_is_ever_empty() -> None:
    module = Conv2(width=0.001).build(MNIST, 10)
    assert [
        len(weight) for name, weight in module.named_parameters() if name.endswith("weight")
    ] == [1, 1, 1, 1, 10]
    for width in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValidationError):
            Conv2(width=width)


def norm(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
    ).sqrt()


def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    return nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def test_resnet20_is_its_formula() -> None:
    module = ResNet20(width=0.125, affine=False).build(CIFAR, 10)
    values, images = dict(module.named_parameters()), torch.rand(3, *CIFAR)
    x = norm(conv(images, values["conv1.weight"])).relu()
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            path, stride = f"stage{stage}.block{block}", 2 if stage > 1 and block == 1 else 1
            inner = norm(conv(x, values[f"{path}.conv1.weight"], stride)).relu()
            inner = norm(conv(inner, values[f"{path}.conv2.weight"]))
            short = (
                norm(conv(x, values[f"{path}.shortcut.conv.weight"], stride)) if stride == 2 else x
            )
            x = (inner + short).relu()
    torch.testing.assert_close(
        module(images), x.mean((2, 3)) @ values["fc.weight"].T + values["fc.bias"]
    )


def test_wide_resnet_is_its_formula() -> None:
    module = WideResNet(depth=16, widen=2, affine=False).build(CIFAR, 10)
    values, images = dict(module.named_parameters()), torch.rand(3, *CIFAR)
    x = conv(images, values["conv1.weight"])
    for stage in (1, 2, 3):
        for block in (1, 2):
            path, stride = f"stage{stage}.block{block}", 2 if stage > 1 and block == 1 else 1
            active = norm(x).relu()
            inner = norm(conv(active, values[f"{path}.conv1.weight"], stride)).relu()
            inner = conv(inner, values[f"{path}.conv2.weight"])
            x = inner + (
                conv(active, values[f"{path}.shortcut.weight"], stride) if block == 1 else x
            )
    x = norm(x).relu().mean((2, 3))
    torch.testing.assert_close(module(images), x @ values["fc.weight"].T + values["fc.bias"])


def test_a_depth_that_makes_no_whole_blocks_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be 6 n \+ 4 \(10, 16, 22, 28, …\), not 20"):
        WideResNet(depth=20)


def test_vgg_has_batch_norm_before_each_relu_and_pools_after_each_stage() -> None:
    kinds = [type(part).__name__ for part in Vgg16(width=0.02).build(CIFAR, 10)]
    conv = ["Conv2d", "BatchNorm2d", "ReLU"]
    stages = [part for depth in (2, 2, 3, 3, 3) for part in [*conv * depth, "MaxPool2d"]]
    assert kinds == [*stages, "Flatten", "Linear"]


def test_layers_have_readable_names_and_the_output_comes_last() -> None:
    names = Conv4().prunable(Conv4().build(CIFAR, 10))
    assert names == [
        f"{layer}.weight" for layer in ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "fc3")
    ]
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


UNFIT = [
    (Conv2(), (784,)), (Conv6(), (1, 7, 28)), (Vgg16(), MNIST), (ResNet20(), (784,)), (WideResNet(), (784,)),
    (TorchvisionModel(), (784,)),
]  # fmt: skip


@pytest.mark.parametrize(("family", "shape"), UNFIT)
def test_unfit_inputs_are_refused_in_words(family: ModelFamily, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        LotteryError, match=f"{family.options().get('name', family.use)} reads images"
    ):
        family.build(shape, 10)


def test_odd_sizes_fit() -> None:
    assert Conv6().build((1, 9, 11), 3)(torch.zeros(1, 1, 9, 11)).shape == (1, 3)


def test_widths_are_positive() -> None:
    with pytest.raises(ValidationError):
        Mlp(hidden=[300, 0])


# initialisers: against torch.nn.init on the same shape


def named(value: object) -> str:
    return (
        f"{value.use}-{getattr(value, 'mode', '')}" if isinstance(value, Initialiser) else "torch"
    )


CONV, DENSE = LayerInfo("conv", (96, 64, 3, 3)), LayerInfo("fc", (300, 784))
REFERENCE = [
    (initialisers.GlorotNormal(), nn.init.xavier_normal_),
    (initialisers.GlorotUniform(), nn.init.xavier_uniform_),
    (initialisers.KaimingNormal(), lambda t: nn.init.kaiming_normal_(t, nonlinearity="relu")),
    (
        initialisers.KaimingNormal(mode="fan_out"),
        lambda t: nn.init.kaiming_normal_(t, mode="fan_out"),
    ),
    (initialisers.KaimingUniform(), lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu")),
    (
        initialisers.KaimingUniform(mode="fan_out"),
        lambda t: nn.init.kaiming_uniform_(t, mode="fan_out"),
    ),
    (initialisers.PytorchDefault(), lambda t: nn.init.kaiming_uniform_(t, a=5**0.5)),
]


@pytest.mark.parametrize(("initialiser", "reference"), REFERENCE, ids=named)
@pytest.mark.parametrize("layer", [CONV, DENSE], ids=lambda layer: layer.name)
def test_distribution_is_torchs(
    initialiser: Initialiser, reference: Callable[[Tensor], Tensor], layer: LayerInfo
) -> None:
    ours = initialiser.weight(layer, stream(0, "test")).flatten().numpy()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = reference(torch.empty(layer.shape)).flatten().numpy()
    assert ours.dtype == np.float32
    assert abs(ours.mean()) < 5 * theirs.std() / np.sqrt(ours.size)
    quantiles = np.linspace(0.001, 0.999, 41)
    np.testing.assert_allclose(
        np.quantile(ours, quantiles),
        np.quantile(theirs, quantiles),
        rtol=0.03,
        atol=0.03 * theirs.std(),
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
        draws.append(
            (initialiser.weight(CONV, stream(7, "test")), initialiser.bias(CONV, stream(8, "test")))
        )
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
