"""The public image sets that torchvision downloads and reads."""

from __future__ import annotations

from lotteryfw.std.torchvision_source import Known, TorchvisionSource

_IDX = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_MATLAB = ("train_32x32.mat", "test_32x32.mat")


class Mnist(TorchvisionSource):
    """MNIST: 70,000 handwritten digits."""

    use = "mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"
    known = Known((1, 28, 28), 10, 60_000, 10_000, "MNIST", "MNIST/raw", _IDX)


class FashionMnist(TorchvisionSource):
    """Fashion-MNIST: 70,000 pictures of clothes, a harder MNIST."""

    use = "fashion_mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "Xiao et al. 2017, Fashion-MNIST"
    known = Known((1, 28, 28), 10, 60_000, 10_000, "FashionMNIST", "FashionMNIST/raw", _IDX)


class Cifar10(TorchvisionSource):
    """CIFAR-10: 60,000 colour photographs of 10 kinds of things."""

    use = "cifar10"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 10 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    known = Known((3, 32, 32), 10, 50_000, 10_000, "CIFAR10", "cifar-10-batches-py", _BATCHES)


class Cifar100(TorchvisionSource):
    """CIFAR-100: 60,000 colour photographs of 100 kinds of things."""

    use = "cifar100"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 100 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    known = Known((3, 32, 32), 100, 50_000, 10_000, "CIFAR100", "cifar-100-python", ("train", "test", "meta"))


class Svhn(TorchvisionSource):
    """SVHN: 99,289 house numbers photographed from the street, one digit each; without the extra set.

    torchvision needs scipy to read it: `pip install "lotteryfw[svhn]"`.
    """

    use = "svhn"
    formula = "73,257 training (and validation) + 26,032 test images, 3×32×32, 10 classes"
    source = "Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning"
    known = Known(
        (3, 32, 32), 10, 73_257, 26_032, "SVHN", ".", _MATLAB, ({"split": "train"}, {"split": "test"}), extra="svhn"
    )
