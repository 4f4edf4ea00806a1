"""The public image sets that torchvision downloads and reads."""

from __future__ import annotations

from lotteryfw.std.torchvision_source import Published, TorchvisionSource

# The MD5 of each published file, unpacked. Those of CIFAR and SVHN are torchvision's own; of MNIST
# torchvision knows those of the packed files only.
_MNIST = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_FASHION = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
_CIFAR10 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
_CIFAR100 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
_SVHN = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
_PROCESSED = ("../processed/training.pt", "../processed/test.pt")
"""Files that older versions of torchvision made of MNIST's, and that it reads where they are."""


class Mnist(TorchvisionSource):
    """MNIST: 70,000 handwritten digits."""

    use = "mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"
    published = Published(
        (1, 28, 28), 10, 60_000, 10_000, "MNIST", "MNIST/raw", _MNIST, instead=_PROCESSED
    )


class FashionMnist(TorchvisionSource):
    """Fashion-MNIST: 70,000 pictures of clothes, a harder MNIST."""

    use = "fashion_mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "Xiao et al. 2017, Fashion-MNIST"
    published = Published(
        (1, 28, 28),
        10,
        60_000,
        10_000,
        "FashionMNIST",
        "FashionMNIST/raw",
        _FASHION,
        instead=_PROCESSED,
    )


class Cifar10(TorchvisionSource):
    """CIFAR-10: 60,000 colour photographs of 10 kinds of things."""

    use = "cifar10"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 10 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    published = Published(
        (3, 32, 32), 10, 50_000, 10_000, "CIFAR10", "cifar-10-batches-py", _CIFAR10
    )


class Cifar100(TorchvisionSource):
    """CIFAR-100: 60,000 colour photographs of 100 kinds of things."""

    use = "cifar100"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 100 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    published = Published(
        (3, 32, 32), 100, 50_000, 10_000, "CIFAR100", "cifar-100-python", _CIFAR100
    )


class Svhn(TorchvisionSource):
    """SVHN: 99,289 digits of house numbers photographed from the street; without the extra set.

    torchvision needs scipy to read it: `pip install "lotteryfw[svhn]"`.
    """

    use = "svhn"
    formula = "73,257 training (and validation) + 26,032 test images, 3×32×32, 10 classes"
    source = (
        "Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning"
    )
    published = Published(
        (3, 32, 32),
        10,
        73_257,
        26_032,
        "SVHN",
        ".",
        _SVHN,
        ({"split": "train"}, {"split": "test"}),
        extra="svhn",
    )
