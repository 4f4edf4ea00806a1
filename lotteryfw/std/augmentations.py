"""Augmentations: random changes to a whole batch of training images.

Draws are made on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log, sqrt
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from lotteryfw import Augmentation, Box

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SOURCE = "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2"
TRIES = 10
"""Boxes drawn for each image; the first that fits is taken. torchvision's number."""


def _rising(bounds: list[float]) -> list[float]:
    if bounds != sorted(bounds):
        raise ValueError("must be [smallest, largest]")
    return bounds


Pair = (Field(min_length=2, max_length=2), AfterValidator(_rising))
Shares = Annotated[list[Annotated[float, Field(gt=0, le=1)]], *Pair]
Ratios = Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], *Pair]


class Flip(Augmentation):
    """Mirrors images left to right."""

    use = "flip"
    formula = "each image mirrored with probability p"
    source = SOURCE

    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that an image is mirrored."""

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return _applied(self, images, rng)

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> dict[str, Tensor]:
        import torch

        return {"mirrored": torch.rand(shape[0], generator=rng) < self.p}

    def transform(self, images: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return images.flip(-1).where(noise["mirrored"][:, None, None, None], images)


class Crop(Augmentation):
    """Shifts images: pads them with zeros and cuts the old size out at a random place."""

    use = "crop"
    formula = "image[y : y + h, x : x + w] of the padded image, x and y uniform in 0 … 2 padding"
    source = SOURCE

    padding: int = Field(default=4, ge=1)
    """Pixels added on each side: the furthest an image is shifted."""

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return _applied(self, images, rng)

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> dict[str, Tensor]:
        import torch

        return {"corners": torch.randint(2 * self.padding + 1, (2, shape[0]), generator=rng)}

    def transform(self, images: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        import torch

        height, width = images.shape[-2:]
        y, x = noise["corners"]
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        # a view [n, c, y, x, h, w]: nothing is copied but the window that is chosen
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(images), device=images.device), :, y, x]


class RandomResizedCrop(Augmentation):
    """Cuts a box of random area and aspect out of each image and enlarges it to the image's size.

    Boxes are drawn as torchvision draws them: area and logarithm of the aspect uniform, sides
    rounded to whole pixels, anew where the box does not fit, ten times at most; every place in the
    image equally likely. If none of the ten fits, the first is cut down to the image's sides,
    where torchvision takes as much of the middle as `aspect` allows; with the default options this
    befalls 3 square images in a billion. Pixels are bilinear between those of the box. There is no
    antialiasing, and nothing for it to do: images keep their size, so that no box is made smaller.

    Streamed images are cropped as they are read, at their full resolution and before any other
    augmentation, and resized with antialiasing. If no box fits, it is the largest in the middle
    that `aspect` allows, as in torchvision.
    """

    use = "random_resized_crop"
    formula = (
        "image[y : y + h, x : x + w] enlarged to H×W; h w = area H W, w / h = aspect, place uniform"
    )
    source = (
        "Szegedy et al. 2015, Going Deeper with Convolutions, section 6; "
        "torchvision's RandomResizedCrop"
    )

    area: Shares = [0.08, 1.0]
    """Smallest and largest share of the image's area that a box has, both above 0 and at most 1."""
    aspect: Ratios = [3 / 4, 4 / 3]
    """Smallest and largest width of a box over its height, in pixels."""

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return _applied(self, images, rng)

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> dict[str, Tensor]:
        import torch

        height, width = shape[-2:]
        whole = torch.tensor([height, width])
        sides = self._sides(shape[0], whole, rng)
        # of whole - sides + 1 places in each direction, one as likely as the other
        corners = (torch.rand(sides.shape, generator=rng) * (whole - sides + 1)).floor()
        return {
            "y": _sampling_points(corners[:, 0], sides[:, 0], height),
            "x": _sampling_points(corners[:, 1], sides[:, 1], width),
        }

    def transform(self, images: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        import torch

        height, width = images.shape[-2:]
        y, x = noise["y"][:, :, None], noise["x"][:, None, :]
        grid = torch.stack([x.expand(-1, height, -1), y.expand(-1, -1, width)], dim=-1)
        return torch.nn.functional.grid_sample(images, grid, align_corners=False)

    def box(self, height: int, width: int, rng: torch.Generator) -> Box:
        import torch

        numbers = torch.rand(2 * TRIES + 2, generator=rng, dtype=torch.float64).tolist()
        # the last two are kept for the corner, so that it does not depend on how many tries it took
        *tries, y, x = numbers
        (least, most), (narrow, wide) = self.area, map(log, self.aspect)
        for share, ratio in zip(tries[:TRIES], tries[TRIES:], strict=True):
            area = height * width * (least + (most - least) * share)
            # uniform in the logarithm, so that 3:4 is as likely as 4:3
            aspect = exp(narrow + (wide - narrow) * ratio)
            tall, broad = round(sqrt(area / aspect)), round(sqrt(area * aspect))
            if 0 < tall <= height and 0 < broad <= width:
                top, left = int(y * (height - tall + 1)), int(x * (width - broad + 1))
                return Box(top, left, tall, broad)
        return self._middle(height, width)

    def _middle(self, height: int, width: int) -> Box:
        """Return the largest box in the middle of the image that `aspect` allows."""
        narrow, wide = self.aspect
        tall, broad = height, width
        if width / height < narrow:
            tall = max(1, round(width / narrow))
        elif width / height > wide:
            broad = max(1, round(height * wide))
        return Box((height - tall) // 2, (width - broad) // 2, tall, broad)

    def _sides(self, count: int, whole: Tensor, rng: torch.Generator) -> Tensor:
        """Draw boxes for images of `whole` [height, width].

        Returns their heights and widths in whole pixels, [count, 2] float32.
        """
        import torch

        areas, ratios = torch.rand(2, count, TRIES, generator=rng)
        (least, most), (narrow, wide) = self.area, map(log, self.aspect)
        areas = whole.prod() * (least + (most - least) * areas)
        # uniform in the logarithm, so that 3:4 is as likely as 4:3
        ratios = (narrow + (wide - narrow) * ratios).exp()
        sides = torch.stack([(areas / ratios).sqrt(), (areas * ratios).sqrt()], dim=-1)
        sides = sides.round().clamp(min=1)
        # 0, the first try, where none fits
        first_fitting = (sides <= whole).all(dim=-1).byte().argmax(dim=1)
        return sides[torch.arange(count), first_fitting].minimum(whole)


def _applied(augmentation: Augmentation, images: Tensor, rng: torch.Generator) -> Tensor:
    """Return the changed images of one batch, whose numbers are drawn and copied for it alone."""
    noise = augmentation.noise(tuple(images.shape), rng)
    assert noise is not None
    here = {name: numbers.to(images.device) for name, numbers in noise.items()}
    return augmentation.transform(images, here)


def _sampling_points(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Return where each new pixel of one axis samples its image: [n, size] float32.

    -1 and 1 are the outer edges of the image. `start` and `side` [n] say which pixels the boxes
    hold. Between a box's edge and the centre of its outermost pixel that pixel is seen alone, not
    mixed with its neighbour outside: as if the box had been cut out first.
    """
    import torch

    # the middle of a pixel lies at 0.5: `grid_sample` counts from edges with align_corners=False
    middles = torch.arange(size) + 0.5
    inside = (middles * side[:, None] / size - 0.5).clamp(min=0).minimum(side[:, None] - 1)
    return (start[:, None] + inside + 0.5) * 2 / size - 1
