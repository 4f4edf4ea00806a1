"""Streamed images: how they are cropped and resized, damaged files, options, and a run from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import cli
from support.picture_folder import CLASSES, DAMAGED, GREY_EVERY, TEST, TRAIN
from torchvision.transforms import v2

from lotteryfw.api.data import Dataset, StreamedDataset
from lotteryfw.api.errors import DataError
from lotteryfw.api.rng import stream
from lotteryfw.registry import Registry
from lotteryfw.std import damaged_images, imagenet
from lotteryfw.std.augmentations import RandomResizedCrop
from lotteryfw.std.image_files import scan
from lotteryfw.std.image_folder import ImageFolder
from lotteryfw.std.imagenet import ImageNet
from lotteryfw.std.streamed_images import ImageReader
from lotteryfw.testkit import trial

NOWHERE = Path("nowhere")


def source(folder: Path, **options: Any) -> ImageFolder:
    settings: dict[str, Any] = {"size": 16, "streamed": True, "damaged": "skip", "validation": 100}
    return ImageFolder(path=str(folder), **settings | options)


def load(source: ImageFolder) -> StreamedDataset:
    dataset = source.load(NOWHERE)
    assert isinstance(dataset, StreamedDataset)
    return dataset


# Damaged files


def test_damaged_files_are_refused_by_name(picture_folder: Path) -> None:
    strict = source(picture_folder, damaged="refuse")
    for look in (strict.check, strict.load):
        with pytest.raises(DataError, match=r"5 files in .* cannot be decoded") as refusal:
            look(NOWHERE)
        for name in DAMAGED:
            assert f"{name} (" in str(refusal.value)
        assert 'set damaged = "skip"' in str(refusal.value)
    # facts need no look into the files
    assert strict.facts(NOWHERE).train == len(CLASSES) * TRAIN - 100


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "held"])
def test_damaged_files_are_left_out_and_counted(picture_folder: Path, streamed: bool) -> None:
    lenient = source(picture_folder, streamed=streamed, size=4)
    facts = lenient.facts(NOWHERE)
    assert (facts.train, facts.validation) == (len(CLASSES) * TRAIN - 4 - 100, 100)
    assert facts.test == len(CLASSES) * TEST - 1
    (warning,) = lenient.check(NOWHERE)
    assert "5 files in" in warning
    assert "they are left out" in warning
    dataset = lenient.load(NOWHERE)
    assert len(dataset.train.labels) == facts.train
    assert len(dataset.test.labels) == facts.test
    # the damaged test image is one of the first class
    assert dataset.test.labels.bincount().tolist() == [TEST - 1, TEST, TEST, TEST]


def test_the_look_for_damage_is_kept(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damaged_images, "_cache_folder", lambda: tmp_path / "images")
    monkeypatch.setattr(damaged_images, "WORTH_KEEPING", 0.0)
    damaged_images._damages.cache_clear()
    first = source(picture_folder).check(NOWHERE)
    (kept,) = (tmp_path / "images").iterdir()
    damaged_images._damages.cache_clear()
    monkeypatch.setattr(damaged_images, "_decode_all", None)
    assert source(picture_folder).check(NOWHERE) == first
    kept.write_text("{")  # cut off: the images are decoded again
    damaged_images._damages.cache_clear()
    with pytest.raises(TypeError, match="not callable"):
        source(picture_folder).check(NOWHERE)
    damaged_images._damages.cache_clear()


# What is read


def test_evaluations_see_the_middle_as_torchvision_cuts_it(picture_folder: Path) -> None:
    dataset = load(source(picture_folder, size=16, resize=20))
    view = v2.Compose([v2.Resize(20), v2.CenterCrop(16), v2.PILToTensor()])
    listed = scan("t", picture_folder, "test").test
    kept = [image for image in listed if image.path.name != "010.jpg" or image.label]
    grey = 0
    for index in range(0, len(kept), 7):
        with Image.open(kept[index].path) as file:
            grey += file.mode == "L"
            expected = view(file.convert("RGB"))
        pixels = dataset.test.inputs.read(index)
        assert pixels.equal(expected)
        assert int(dataset.test.labels[index]) == kept[index].label
    assert grey > 0


def test_grey_images_have_three_equal_channels(picture_folder: Path) -> None:
    images = scan("t", picture_folder, "test").test
    reader = ImageReader("t", images, 3, 16, 18)
    pixels = reader.read(TEST + 1 + GREY_EVERY)
    assert pixels.shape == (3, 16, 16)
    assert pixels[0].equal(pixels[1])
    assert pixels[0].equal(pixels[2])
    assert not reader.read(TEST + 2)[0].equal(reader.read(TEST + 2)[1])
    assert ImageReader("t", images, 1, 16, 18).read(3).shape == (1, 16, 16)


def test_crops_are_cut_from_the_whole_image(tmp_path: Path) -> None:
    """Not from the middle that evaluations see: the corner of a photograph can be a crop."""
    pixels = np.zeros((30, 120, 3), np.uint8)
    pixels[:8, :8] = 255
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    from lotteryfw.std.image_files import Image as File

    reader = ImageReader("t", [File(tmp_path / "corner.png", 0)], 3, 4, 4)
    seen = []

    def draw(height: int, width: int) -> Any:
        seen.append((height, width))
        return (0, 0, 8, 8)

    assert (reader.read(0, draw) == 255).all()
    assert seen == [(30, 120)]
    assert not reader.read(0).any()


def test_boxes_are_distributed_as_torchvisions() -> None:
    """Means of area, aspect and place over boxes of an image that is wider than high."""
    height, width, count = 60, 90, 4000
    crop = RandomResizedCrop()
    own = torch.tensor([crop.box(height, width, stream("box", n)) for n in range(count)]).double()
    theirs = []
    transform = v2.RandomResizedCrop(10)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    for _ in range(count):
        box = transform.make_params([image])
        theirs.append([box["top"], box["left"], box["height"], box["width"]])
    other = torch.tensor(theirs).double()

    def figures(boxes: torch.Tensor) -> torch.Tensor:
        top, left, tall, broad = boxes.unbind(1)
        area, aspect = tall * broad / (height * width), (broad / tall).log()
        middle_y, middle_x = (top + tall / 2) / height, (left + broad / 2) / width
        columns = [area, area**2, aspect, aspect**2, middle_y, middle_y**2, middle_x, middle_x**2]
        return torch.stack(columns, 1)

    mine, reference = figures(own), figures(other)
    spread = (mine.var(0) / count + reference.var(0) / count).sqrt()
    assert ((mine.mean(0) - reference.mean(0)).abs() < 4.5 * spread).all()
    tall_ends = own[:, 0] + own[:, 2]
    assert (own[:, :2] >= 0).all()
    assert tall_ends.max() <= height
    assert (own[:, 1] + own[:, 3]).max() <= width


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (11, 11)])
def test_an_image_that_no_box_fits_into_gives_its_middle(height: int, width: int) -> None:
    options = {"area": [1.0, 1.0], "aspect": [0.5, 0.9]}
    transform = v2.RandomResizedCrop(10, scale=(1.0, 1.0), ratio=(0.5, 0.9))
    params = transform.make_params([torch.empty(3, height, width)])
    expected = tuple(params[name] for name in ("top", "left", "height", "width"))
    assert RandomResizedCrop(**options).box(height, width, stream(0)) == expected


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": None}, "streamed = true needs a size"),
        ({"normalise": "standard"}, "needs all pixels at once"),
        ({"resize": 15}, "resize = 15 leaves less than the size, 16"),
        ({"streamed": False, "resize": 20}, "resize is for streamed images"),
        ({"grey": True, "normalise": "imagenet"}, "is for three channels"),
        ({"damaged": "ignore"}, "'refuse' or 'skip'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(NOWHERE, **options)


def test_a_streamed_folder_passes_the_trial_of_data_sources(
    picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTTERYFW_DATA", str(picture_folder))
    offers = {offer.full_name: offer for offer in Registry.load().offers("data")}
    options = {"path": ".", "size": 16, "streamed": True, "damaged": "skip", "validation": 100}
    trial(offers["lotteryfw/image_folder"].cls, options)


def test_imagenet_is_streamed_unless_it_is_told_otherwise(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").symlink_to(picture_folder / "train")
    (tmp_path / "val").symlink_to(picture_folder / "test")
    for name, count in (("CLASSES", 4), ("TRAIN", 4 * TRAIN), ("TEST", 4 * TEST)):
        monkeypatch.setattr(imagenet, name, count)
    lenient = ImageNet(path=str(tmp_path), size=16, validation=100, damaged="skip")
    facts, dataset = lenient.facts(NOWHERE), lenient.load(NOWHERE)
    assert isinstance(dataset, StreamedDataset)
    assert facts.streamed
    assert (facts.train, facts.test) == (4 * TRAIN - 104, 4 * TEST - 1)
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (facts.train, facts.test)
    assert dataset.mean == (0.485, 0.456, 0.406)
    with pytest.raises(DataError, match=r"imagenet: 5 files in .*train/ant/003.jpg"):
        ImageNet(path=str(tmp_path), size=16).load(NOWHERE)
    decoded = ImageNet(path=str(tmp_path), size=4, streamed=False, damaged="skip", validation=100)
    assert isinstance(decoded.load(tmp_path), Dataset)


# From the command line

RECIPE = """
name = "streamed"
model = {{ use = "resnet20", width = 0.125 }}
search = {{ use = "imp", levels = 1 }}
criterion = "movement"
controls = ["reinit"]
rewind = {{ use = "to_step", step = "2it" }}

[data]
use = "image_folder"
path = "{path}"
size = 8
streamed = true
validation = 100
{more}
[train]
length = "4it"
batch = 32
optimizer = {{ use = "sgd", lr = 0.1, momentum = 0.9 }}
augment = ["random_resized_crop", "flip"]

[evaluate]
points = 2
metrics = ["nll"]
"""


def write_recipe(folder: Path, pictures: Path, more: str) -> Path:
    path = folder / "streamed.toml"
    path.write_text(RECIPE.format(path=pictures, more=more))
    return path


def test_check_names_damaged_files_with_the_place_in_the_recipe(
    picture_folder: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, picture_folder, "")
    refusal = cli(tmp_path, "check", str(recipe))
    assert refusal.returncode != 0
    assert "streamed.toml" in refusal.stderr
    assert "train/ant/003.jpg" in refusal.stderr
    assert "Traceback" not in refusal.stderr
    recipe = write_recipe(tmp_path, picture_folder, 'damaged = "skip"')
    assert "they are left out" in cli(tmp_path, "check", str(recipe)).stderr


@pytest.mark.large
def test_a_study_on_streamed_images_does_not_depend_on_threads_or_processes(
    picture_folder: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, picture_folder, 'damaged = "skip"')
    tables = []
    for jobs, threads in (("1", "1"), ("2", "3")):
        out = tmp_path / f"run{jobs}"
        store = str(tmp_path / f"store{jobs}")
        done = cli(
            tmp_path, "recipe", str(recipe), "--jobs", jobs, "--out", str(out), "--store", store,
            LOTTERYFW_READ_THREADS=threads,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        tables.append((out / "levels.csv").read_text())
    assert tables[0] == tables[1]
