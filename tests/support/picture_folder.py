"""A generated folder of images of mixed sizes, some of them grey, some damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow", "dog")
TRAIN, TEST = 450, 50
"""Images of each class."""
DAMAGED = {
    "train/ant/003.jpg": "cut off",
    "train/bee/100.png": "cut off",
    "train/cow/007.jpg": "empty",
    "train/dog/449.jpg": "text",
    "test/ant/010.jpg": "cut off",
}
"""The damaged files, with what is wrong with each."""
GREY_EVERY, PNG_EVERY = 10, 25


def write_pictures(root: Path) -> None:
    """Write 2,000 small images: coarse patterns that tell their class a little."""
    rng = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("test", TEST)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                suffix = "png" if number % PNG_EVERY == 0 else "jpg"
                picture(rng, label, is_grey=number % GREY_EVERY == 1).save(
                    folder / f"{number:03}.{suffix}"
                )
    for damaged, reason in DAMAGED.items():
        path = root / damaged
        content = {"cut off": path.read_bytes()[:-150], "empty": b"", "text": b"no image"}
        path.write_bytes(content[reason])


def picture(rng: np.random.Generator, label: int, is_grey: bool) -> Image.Image:
    """Return an image of 20 to 60 pixels a side; in grey it has one channel."""
    height, width = (int(side) for side in rng.integers(20, 61, 2))
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    # a stripe of the class's colour, so that there is something to learn
    coarse[2] = (label * 80, 255 - label * 80, 128)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert("L") if is_grey else image
