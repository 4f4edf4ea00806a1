"""The augmentations of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lotteryfw.api.kinds import Augmentation
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine.component_errors import WrongResult, described
from lotteryfw.engine.prefetched_draws import PrefetchedDraws

Prefetched = dict[tuple[int, tuple[int, ...]], PrefetchedDraws | None]


class Augmenter:
    """Applies the augmentations of a training, one after another.

    The numbers of each step come from a stream of their own, so prefetching them changes nothing.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        seed: int,
        device: str,
        skipped: int | None = None,
    ):
        """`skipped` is the position of the one that was applied as the images were read."""
        self._augmentations = augmentations
        self._skipped = skipped
        self._seed = seed
        self._device = device
        self._prefetched: Prefetched = {}

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Return the images of the update from `step` to `step + 1`."""
        for position, augmentation in enumerate(self._augmentations):
            if position == self._skipped:
                continue
            draws = self._draws(position, tuple(images.shape))
            if draws is None:
                changed = augmentation.apply(images, self._stream(position, step))
            else:
                changed = augmentation.transform(images, draws(step))
            _check_images(augmentation, changed, images)
            images = changed
        return images

    def _stream(self, position: int, step: int) -> torch.Generator:
        return stream(self._seed, Stream.AUGMENTATION, position, step)

    def _draws(self, position: int, shape: tuple[int, ...]) -> PrefetchedDraws | None:
        """Return the draws for images of a shape; None where the augmentation draws by itself."""
        # There is nothing to copy, so nothing to gain.
        if self._device == "cpu":
            return None
        # Draws are made ahead for one shape: images of another have draws of their own.
        key = (position, shape)
        if key not in self._prefetched:
            self._prefetched[key] = self._prefetch(position, shape)
        return self._prefetched[key]

    def _prefetch(self, position: int, shape: tuple[int, ...]) -> PrefetchedDraws | None:
        augmentation = self._augmentations[position]
        # An augmentation that cannot draw ahead says so by returning None.
        if augmentation.noise(shape, self._stream(position, 0)) is None:
            return None

        def draw(step: int) -> dict[str, Tensor]:
            noise = augmentation.noise(shape, self._stream(position, step))
            assert noise is not None
            return noise

        return PrefetchedDraws(draw, self._device)


def _check_images(augmentation: Augmentation, changed: object, images: Tensor) -> None:
    """Raise WrongResult for anything but images of the same shape and dtype."""
    if isinstance(changed, Tensor):
        form = changed.shape, changed.dtype
        if form == (images.shape, images.dtype):
            return
    raise WrongResult(
        augmentation,
        f"apply() or transform() returned {described(changed)} for {described(images)}; shape and "
        "dtype must stay as they are",
    )
