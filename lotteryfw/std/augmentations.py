"""Augmentations: random changes to a whole batch of training images at once. Draws are made on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lotteryfw import Augmentation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SOURCE = "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2"


class Flip(Augmentation):
    """Mirrors images left to right."""

    use = "flip"
    formula = "each image mirrored with probability p"
    source = SOURCE

    p: float = Field(default=0.5, ge=0, le=1)
    """Probability that an image is mirrored."""

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        import torch

        mirrored = torch.rand(len(images), generator=rng) < self.p
        return images.flip(-1).where(mirrored.to(images.device)[:, None, None, None], images)


class Crop(Augmentation):
    """Shifts images: pads them with zeros on all sides and cuts the old size out at a random place."""

    use = "crop"
    formula = "image[y : y + h, x : x + w] of the padded image, x and y uniform in 0 … 2 padding"
    source = SOURCE

    padding: int = Field(default=4, ge=1)
    """Pixels added on each side: the furthest an image is shifted."""

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        import torch

        height, width = images.shape[-2:]
        y, x = torch.randint(2 * self.padding + 1, (2, len(images)), generator=rng).to(images.device)
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [n, c, y, x, h, w]
        return windows[torch.arange(len(images), device=images.device), :, y, x]
