import hashlib
import os
import runpy
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from support.idx_files import write_idx
from support.paths import ROOT

from lotteryfw.api.data import Dataset, Subset
from lotteryfw.api.errors import DataError
from lotteryfw.api.kinds import DataSource
from lotteryfw.api.rng import stream
from lotteryfw.runner import default_data_folder
from lotteryfw.std import digits, image_files, imagenet
from lotteryfw.std.digits import Digits
from lotteryfw.std.image_folder import ImageFolder
from lotteryfw.std.imagenet import ImageNet
from lotteryfw.std.splits import split
from lotteryfw.std.synthetic import Synthetic
from lotteryfw.std.torchvision_sets import Cifar10, Cifar100, FashionMnist, Mnist, Svhn
from lotteryfw.std.torchvision_source import TorchvisionSource

NOWHERE = Path("nowhere")
TORCHVISION = [Mnist(), FashionMnist(), Cifar10(), Cifar100(), Svhn()]


def check(splits: Dataset, source: DataSource, folder: Path = NOWHERE) -> None:
    """What every source promises: shapes, dtypes, sizes as its facts say, labels in range."""
    facts = source.facts(folder)
    for name, count in (
        ("train", facts.train),
        ("validation", facts.validation),
        ("test", facts.test),
    ):
        part = getattr(splits, name)
        assert part.inputs.shape == (count, *facts.shape)
        assert part.inputs.dtype in (torch.uint8, torch.float32)
        assert part.inputs.is_contiguous()
        assert part.labels.shape == (count,)
        assert part.labels.dtype == torch.int64
        assert part.labels.min() >= 0
        assert part.labels.max() < facts.classes


def same(first: Dataset, second: Dataset) -> bool:
    return all(
        getattr(first, part).inputs.equal(getattr(second, part).inputs)
        for part in ("train", "validation", "test")
    )


# the split


def numbered(examples: int) -> Subset:
    return Subset(
        torch.arange(examples).to(torch.uint8).reshape(-1, 1, 1, 1), torch.arange(examples)
    )


def test_split_is_disjoint_complete_and_keeps_labels() -> None:
    test = numbered(7)
    splits = split(numbered(200), test, 50, 0, "unit")
    assert splits.test is test
    assert len(splits.validation.labels) == 50
    assert sorted([*splits.train.labels.tolist(), *splits.validation.labels.tolist()]) == list(
        range(200)
    )
    for part in (splits.train, splits.validation):
        assert part.inputs.flatten().tolist() == part.labels.tolist()


def test_split_depends_on_its_seed_alone() -> None:
    chosen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        chosen.append(split(numbered(200), numbered(1), 50, 3, "unit").validation.labels)
    assert chosen[0].equal(chosen[1])
    assert not chosen[0].equal(split(numbered(200), numbered(1), 50, 4, "unit").validation.labels)


def test_standard_is_measured_per_channel_on_the_training_part() -> None:
    images = torch.randint(256, (90, 3, 4, 5), generator=stream(0, "images")).to(torch.uint8)
    images[:, 2] = 51
    examples = Subset(images, torch.arange(90))
    splits = split(examples, examples, 30, 0, "standard")
    pixels = splits.train.inputs.numpy() / 255
    np.testing.assert_allclose(splits.mean, pixels.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(splits.std, [*pixels[:, :2].std(axis=(0, 2, 3)), 1.0])
    unit = split(examples, examples, 30, 0, "unit")
    assert (unit.mean, unit.std) == ((0.0,), (1.0,))


# digits


def test_digits() -> None:
    splits = Digits().load(NOWHERE)
    check(splits, Digits())
    assert splits.test.labels.bincount().tolist() == [36] * 10
    assert splits.train.inputs.max() == 255


def test_digits_test_part_is_fixed() -> None:
    first, second = (Digits(split_seed=seed).load(NOWHERE) for seed in (0, 1))
    assert first.test.inputs.equal(second.test.inputs)
    assert not first.validation.inputs.equal(second.validation.inputs)


def test_digits_file_is_what_the_script_makes() -> None:
    pytest.importorskip("sklearn", reason="the digits are made from scikit-learn's copy")
    from safetensors.numpy import save

    script = ROOT / "scripts" / "make_digits.py"
    made = save(runpy.run_path(str(script))["digits"]())
    assert hashlib.sha256(made).digest() == hashlib.sha256(digits.FILE.read_bytes()).digest()


def test_validation_must_leave_something_to_train_on() -> None:
    for attempt in (
        Digits(validation=1437).load,
        Digits(validation=1437).facts,
        Mnist(validation=60_000).facts,
    ):
        with pytest.raises(DataError, match="leaves nothing to train on"):
            attempt(NOWHERE)


# torchvision's sets


@pytest.mark.parametrize("source", TORCHVISION, ids=lambda source: source.use)
def test_facts_need_no_files_and_absence_is_told(source: DataSource, tmp_path: Path) -> None:
    assert source.facts(NOWHERE).validation == 5000
    with pytest.raises(DataError) as caught:
        source.load(tmp_path)
    assert f"`lotteryfw data fetch {source.use}`" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 + 10 made-up images in MNIST's files."""
    monkeypatch.setattr(Mnist, "published", replace(Mnist.published, examples=40, test=10))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 10)):
        write_idx(
            raw / f"{part}-images-idx3-ubyte",
            rng.integers(256, size=(count, 28, 28), dtype=np.uint8),
        )
        write_idx(raw / f"{part}-labels-idx1-ubyte", rng.integers(10, size=count, dtype=np.uint8))
    return tmp_path


def test_mnist_reads_torchvisions_files(small_mnist: Path) -> None:
    splits = Mnist(validation=8).load(small_mnist)
    check(splits, Mnist(validation=8))
    raw = np.fromfile(small_mnist / "MNIST/raw/t10k-images-idx3-ubyte", dtype=np.uint8)[16:]
    np.testing.assert_array_equal(splits.test.inputs.numpy().ravel(), raw)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:1000], lambda data: b"", lambda data: b"\xff" * len(data)]
)
def test_damaged_files_are_told(small_mnist: Path, damage: Callable[[bytes], bytes]) -> None:
    path = small_mnist / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"mnist: the files in .* could not be read"):
        Mnist(validation=8).load(small_mnist)


def test_other_files_have_another_fingerprint_and_planning_needs_none(
    small_mnist: Path, tmp_path: Path
) -> None:
    source = Mnist(validation=8)
    before = source.fingerprint(small_mnist)
    assert len(before) == 64
    path = small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte"
    write_idx(path, np.arange(10, dtype=np.uint8))
    assert source.fingerprint(small_mnist) != before
    assert source.fingerprint(tmp_path / "nowhere") != before


def test_what_torchvision_reads_instead_of_mnists_files_counts(small_mnist: Path) -> None:
    source = Mnist(validation=8)
    before = source.fingerprint(small_mnist)
    processed = small_mnist / "MNIST" / "processed"
    processed.mkdir()
    (processed / "training.pt").write_bytes(b"1")
    assert source.fingerprint(small_mnist) == before  # torchvision reads both, or none
    (processed / "test.pt").write_bytes(b"2")
    assert source.fingerprint(small_mnist) != before


def test_the_published_checksums_are_torchvisions() -> None:
    from torchvision import datasets

    for source in (Cifar10, Cifar100):
        cls = getattr(datasets, source.published.torchvision)
        meta = [(cls.meta["filename"], cls.meta["md5"])]
        assert dict([*cls.train_list, *cls.test_list, *meta]) == source.published.files
    split_list = datasets.SVHN.split_list
    assert {
        split_list[part][1]: split_list[part][2] for part in ("train", "test")
    } == Svhn.published.files


def test_fetch_refuses_files_that_are_not_the_published_ones(small_mnist: Path) -> None:
    path = small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    actual, published = hashlib.md5(content).hexdigest(), Mnist.published.files[path.name]
    with pytest.raises(DataError, match=f"{path} has MD5 {actual}, the published file {published}"):
        Mnist().fetch(small_mnist)
    assert path.read_bytes() == content


def test_fetch_refuses_a_download_that_is_not_the_published_one(
    small_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    files = {path.name: path.read_bytes() for path in (small_mnist / "MNIST/raw").iterdir()}
    published = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(Mnist, "published", replace(Mnist.published, files=published))
    folder = small_mnist / "fresh"
    sent = dict(files)

    def download(root: Path, **_: object) -> SimpleNamespace:
        (root / "MNIST/raw").mkdir(parents=True, exist_ok=True)
        for name, content in sent.items():
            (root / "MNIST/raw" / name).write_bytes(content)
        return SimpleNamespace(data=np.zeros((1, 28, 28)), targets=[0])

    monkeypatch.setattr(datasets, "MNIST", download)
    Mnist().fetch(folder)
    Mnist().fetch(folder)
    name = "train-images-idx3-ubyte"
    sent[name] = b"something else"
    actual = hashlib.md5(sent[name]).hexdigest()
    with pytest.raises(
        DataError, match=f"{name} has MD5 {actual}, the published file {published[name]}"
    ):
        Mnist().fetch(small_mnist / "other")


def test_fetch_names_both_checksums_of_a_damaged_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    class Damaged:
        filename, tgz_md5 = "cifar.tar.gz", "0" * 32

        def __init__(self, root: Path, **_: object):
            (root / self.filename).write_bytes(b"half")
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(datasets, "CIFAR10", Damaged)
    actual = hashlib.md5(b"half").hexdigest()
    with pytest.raises(
        DataError,
        match=f"corrupted. .*cifar.tar.gz has MD5 {actual}, the published file {'0' * 32}",
    ):
        Cifar10().fetch(tmp_path)


def test_a_set_of_the_wrong_size_is_told(small_mnist: Path) -> None:
    write_idx(small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte", np.zeros(9, dtype=np.uint8))
    with pytest.raises(DataError, match=r"10, 1, 28, 28\] images, 9 labels, not 10"):
        Mnist(validation=8).load(small_mnist)


HALVES = [
    (Cifar10, "targets", (0, 2, 3, 1), {"train": True}),
    (Cifar100, "targets", (0, 2, 3, 1), {"train": True}),
    (Svhn, "labels", (0, 1, 2, 3), {"split": "train"}),
]


@pytest.mark.parametrize(("source", "labels", "order", "train"), HALVES)
def test_colour_sets_are_brought_into_one_form(
    source: type[TorchvisionSource], labels: str, order: tuple[int, ...], train: dict,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """torchvision checks these files' hashes, so its classes are stood in for."""
    from torchvision import datasets

    images = np.random.default_rng(0).integers(256, size=(40, 3, 32, 32), dtype=np.uint8)

    def read(root: Path, download: bool, **options: object) -> SimpleNamespace:
        part = slice(0, 30) if options == train else slice(30, 40)
        return SimpleNamespace(
            data=images[part].transpose(order),
            **{labels: list(range(10)) * (1 + 2 * (options == train))},
        )

    which = replace(source.published, examples=30, test=10)
    monkeypatch.setattr(source, "published", which)
    monkeypatch.setattr(datasets, which.torchvision, read)
    (tmp_path / which.folder).mkdir(exist_ok=True)
    for name in which.files:
        (tmp_path / which.folder / name).touch()
    splits = source(validation=5).load(tmp_path)
    check(splits, source(validation=5))
    np.testing.assert_array_equal(splits.test.inputs.numpy(), images[30:])


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (URLError("Name or service\nnot known"), "not known.*Without a network"),
        (ImportError("no scipy"), r'no scipy; pip install "lotteryfw\[svhn\]"'),
    ],
)
def test_fetch_tells_what_stood_in_its_way(
    trouble: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    def download(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(datasets, "SVHN", download)
    with pytest.raises(DataError, match=f"svhn.*{said}"):
        Svhn().fetch(tmp_path / "new")


def test_the_extras_that_messages_name_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {source.published.extra for source in TORCHVISION} - {""} <= project[
        "optional-dependencies"
    ].keys()


@pytest.mark.real_data("MNIST")
def test_real_mnist() -> None:
    splits = Mnist(normalise="standard").load(default_data_folder())
    check(splits, Mnist())
    assert splits.mean == pytest.approx((0.1307,), abs=1e-3)
    assert splits.std == pytest.approx((0.3081,), abs=1e-3)
    assert splits.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# image folders


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes, 4 + 2 images each, every image of one colour that names it."""
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (6, 5), (label * 50, number * 10, 7)).save(
                    folder / f"{number}.png"
                )
            (folder / "notes.txt").write_text("not an image")
    return tmp_path


def test_image_folder_reads_classes_in_order(pictures: Path) -> None:
    source = ImageFolder(path="own", validation=2)
    splits = source.load(pictures)
    check(splits, source, pictures)
    assert source.facts(pictures).shape == (3, 5, 6)
    for part in (splits.train, splits.validation, splits.test):
        assert (part.inputs[:, 0].amax((1, 2)) == part.labels * 50).all()
    assert sorted(splits.test.inputs[:, 1, 0, 0].tolist()) == [0, 0, 0, 10, 10, 10]


def test_image_folder_keeps_rows_columns_and_channels_apart(pictures: Path) -> None:
    pixels = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    Image.fromarray(pixels).save(pictures / "own/test/ant/0.png")
    assert (
        ImageFolder(path="own", validation=2)
        .load(pictures)
        .test.inputs[0]
        .permute(1, 2, 0)
        .equal(torch.from_numpy(pixels))
    )


def test_image_folder_takes_an_absolute_path(pictures: Path) -> None:
    here, there = (
        ImageFolder(path="own", validation=2),
        ImageFolder(path=str(pictures / "own"), validation=2),
    )
    assert same(here.load(pictures), there.load(NOWHERE))


def test_image_folder_size_and_grey(pictures: Path) -> None:
    Image.new("RGB", (40, 10)).save(pictures / "own/train/ant/odd.jpg")
    source = ImageFolder(path="own", size=4, grey=True, validation=2)
    splits = source.load(pictures)
    check(splits, source, pictures)
    assert source.facts(pictures).shape == (1, 4, 4)


def test_image_folder_fingerprint_sees_files_come_and_go(pictures: Path) -> None:
    source = ImageFolder(path="own", validation=2)
    before, facts = source.fingerprint(pictures), source.facts(pictures)
    assert source.fingerprint(pictures) == before
    extra = pictures / "own/train/cow/9.png"
    Image.new("RGB", (6, 5)).save(extra)
    assert source.fingerprint(pictures) != before
    assert source.facts(pictures).train == facts.train + 1
    extra.unlink()
    assert source.fingerprint(pictures) == before


def test_image_folder_fingerprint_sees_an_image_edited_in_place(pictures: Path) -> None:
    source = ImageFolder(path="own", validation=2)
    before = source.fingerprint(pictures)
    image = next(iter(sorted((pictures / "own" / "test").rglob("*.png"))))
    content, about = image.read_bytes(), image.stat()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert source.fingerprint(pictures) != before
    image.write_bytes(content)
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns + 2))
    assert source.fingerprint(pictures) == before


def test_image_folder_fingerprint_does_not_depend_on_where_it_lies(pictures: Path) -> None:
    before = ImageFolder(path="own").fingerprint(pictures)
    (pictures / "own").rename(pictures / "moved")
    assert ImageFolder(path="moved").fingerprint(pictures) == before


def ramp(path: Path) -> np.ndarray:
    """Writes 16 bits a pixel, over the whole range, and returns them."""
    values = np.linspace(0, 65535, 30).round().astype(np.uint16).reshape(5, 6)
    Image.fromarray(values).save(path)
    return values


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_images_of_16_bits_are_scaled_by_their_range(pictures: Path, suffix: str) -> None:
    (pictures / "own/test/ant/0.png").unlink()
    values = ramp(pictures / f"own/test/ant/0.{suffix}")
    image = ImageFolder(path="own", validation=2, grey=True).load(pictures).test.inputs[0, 0]
    np.testing.assert_array_equal(image.numpy(), np.round(values / 257))
    assert image.unique().numel() == 30


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_of_an_unknown_range_are_refused(pictures: Path, dtype: type) -> None:
    Image.fromarray(np.ones((5, 6), dtype)).save(pictures / "own/test/ant/0.tiff")
    with pytest.raises(DataError, match=r"0\.tiff holds .* of an unknown range; convert it"):
        ImageFolder(path="own", validation=2).load(pictures)


@pytest.mark.parametrize("normalise", ["unit", "standard"])
def test_image_folder_too_large_for_memory_is_mapped(
    pictures: Path, normalise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ImageFolder(path="own", validation=2, normalise=normalise)
    held = source.load(pictures)
    monkeypatch.setattr(image_files, "IN_MEMORY", 18 * 3 * 5 * 6 - 1)
    mapped = source.load(pictures)
    check(mapped, source, pictures)
    assert same(held, mapped)
    assert (held.mean, held.std) == (mapped.mean, mapped.std)
    (file,) = (pictures / "decoded").glob("*.uint8")
    assert file.stat().st_size == 18 * 3 * 5 * 6
    monkeypatch.setattr(image_files.Decoder, "_pixels", None)  # decoded once
    assert same(held, source.load(pictures))
    file.write_bytes(bytes(file.stat().st_size))
    assert not ImageFolder(path="own", validation=2).load(pictures).train.inputs.any()


def test_images_that_change_are_decoded_anew(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "IN_MEMORY", 0)
    source = ImageFolder(path="own", validation=2)
    before = source.load(pictures)
    Image.new("RGB", (6, 5), (255, 255, 255)).save(pictures / "own/test/ant/0.png")
    assert not same(before, source.load(pictures))
    assert not same(before, ImageFolder(path="own", validation=2, split_seed=1).load(pictures))


def test_a_folder_that_cannot_hold_the_decoded_images_is_told(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "IN_MEMORY", 0)
    (pictures / "decoded").touch()
    with pytest.raises(
        DataError, match=r"image_folder: the decoded images .* could not be kept in"
    ):
        ImageFolder(path="own", validation=2).load(pictures)


def remove_test(root: Path) -> None:
    (root / "test").rename(root / "tests")


def strange_class(root: Path) -> None:
    (root / "test" / "dog").mkdir()


def odd_size(root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "train/bee/odd.png")


def broken(root: Path) -> None:
    (root / "train/bee/1.png").write_bytes(b"no image")


def truncated(root: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(5, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "train/bee/1.jpg")
    (root / "train/bee/1.jpg").write_bytes((root / "train/bee/1.jpg").read_bytes()[:-60])


def no_images(root: Path) -> None:
    for image in root.glob("test/*/*.png"):
        image.unlink()


def empty_class(root: Path) -> None:
    for image in (root / "train" / "bee").glob("*.png"):
        image.unlink()


def empty_test_class(root: Path) -> None:
    (root / "train" / "dog").mkdir()
    Image.new("RGB", (6, 5)).save(root / "train" / "dog" / "0.png")
    (root / "test" / "dog").mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_test, "no folder .*test; .*should hold train/<class>/<image>"),
        (strange_class, "classes that train/ lacks: dog"),
        (odd_size, r"odd\.png has 9×9 pixels, the first image 6×5; give a size"),
        (broken, r"1\.png is not an image"),
        (truncated, r"1\.jpg is not an image"),
        (no_images, "no images in .*test"),
        (empty_class, "train has class folders without an image: bee"),
        (empty_test_class, "test has class folders without an image: dog"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_image_folder_tells_what_is_wrong(
    pictures: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(pictures / "own")
    with pytest.raises(DataError, match=said):
        ImageFolder(path="own", validation=2).load(pictures)


@pytest.mark.real_data("cifar10-jpeg")
def test_real_cifar10_as_a_folder() -> None:
    source = ImageFolder(path="cifar10-jpeg")
    facts = source.facts(default_data_folder())
    assert (facts.shape, facts.classes, facts.train, facts.test) == (
        (3, 32, 32),
        10,
        45_000,
        10_000,
    )


# ImageNet


def test_imagenet_facts_need_no_files() -> None:
    facts = ImageNet(path="imagenet").facts(NOWHERE)
    assert (facts.shape, facts.classes, facts.train, facts.validation, facts.test) == (
        (3, 224, 224), 1000, 1_271_167, 10_000, 50_000,
    )  # fmt: skip


def test_imagenet_is_read_from_its_folders(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageNet(path="own", size=4, validation=2, streamed=False)
    with pytest.raises(
        DataError,
        match=r"imagenet: there is no folder .*val; .*should hold train/<class>/<image> and",
    ):
        source.load(pictures)
    absent = source.fingerprint(pictures)  # planning needs no files
    (pictures / "own/test").rename(pictures / "own/val")
    with pytest.raises(
        DataError,
        match="holds 3 classes, 12 training and 6 validation images, not 1000, 1281167 and",
    ):
        source.load(pictures)
    for name, count in (("CLASSES", 3), ("TRAIN", 12), ("TEST", 6)):
        monkeypatch.setattr(imagenet, name, count)
    splits = source.load(pictures)
    check(splits, source, pictures)
    assert (splits.test.inputs[:, 0].amax((1, 2)) == splits.test.labels * 50).all()
    before = source.fingerprint(pictures)
    assert before not in (absent, "")
    Image.new("RGB", (6, 5), (255, 255, 255)).save(pictures / "own/val/ant/0.png")
    assert source.fingerprint(pictures) != before
    assert splits.mean == (0.485, 0.456, 0.406)


# synthetic


def test_synthetic_is_what_it_says() -> None:
    source = Synthetic(examples=100, classes=4, shape=[2, 3], noise=0.0)
    splits = source.load(NOWHERE)
    check(splits, source)
    for label in range(4):
        prototype = splits.train.inputs[splits.train.labels == label][0]
        for part in (splits.train, splits.validation, splits.test):
            assert (part.inputs[part.labels == label] == prototype).all()


def test_synthetic_noise_has_its_deviation_and_parts_differ() -> None:
    clean, noisy = (Synthetic(examples=1000, noise=noise).load(NOWHERE) for noise in (0.0, 0.5))
    noise = noisy.train.inputs - clean.train.inputs
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert not noisy.validation.inputs.equal(noisy.test.inputs)
    assert not noisy.validation.inputs.equal(noisy.train.inputs[:200])


def test_synthetic_repeats_by_its_seed() -> None:
    assert same(Synthetic().load(NOWHERE), Synthetic().load(NOWHERE))
    assert not same(Synthetic().load(NOWHERE), Synthetic(data_seed=1).load(NOWHERE))
