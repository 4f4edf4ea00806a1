"""The batches of one training, augmented; those of streamed data are read ahead of it."""

from __future__ import annotations

import weakref
from functools import partial

from torch import Tensor

from lotteryfw.api.data import Box, DrawBox
from lotteryfw.api.kinds import Augmentation
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine.augmenter import Augmenter
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.ranks.exchange import Ranks
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.streamed_part import BatchInReading
from lotteryfw.search.jobs import Evaluate, Train

AHEAD = 2
"""Batches of streamed data that are read while the device works on the one before them."""


class TrainingBatches:
    """Makes the batch of any step. What a step sees depends on the job and the step alone."""

    def __init__(self, job: Train | Evaluate, context: EngineContext, dataset: DeviceDataset):
        self._job = job
        self._dataset = dataset
        augmentations = [context.component(spec) for spec in job.augment]
        self._crop: RandomCrop | None = None
        if dataset.streamed:
            self._crop = RandomCrop.of(augmentations, job.augment_seed, dataset.shape)
        skipped = None if self._crop is None else self._crop.position
        self._augment = Augmenter(augmentations, job.augment_seed, context.device, skipped)

        self._has_augmentations = len(augmentations) > (self._crop is not None)
        self._ranks: Ranks | None = None

        self._in_reading: dict[int, BatchInReading] = {}
        # Whoever is done with the training does not wait for batches that nobody needs.
        weakref.finalize(self, _cancel, self._in_reading)

    def join(self, ranks: Ranks) -> None:
        """Make the share of this rank of every batch from now on."""
        self._ranks = ranks
        _cancel(self._in_reading)
        self._in_reading.clear()

    def __call__(self, step: int, until: int | None = None) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of the update from `step` to `step + 1`.

        Batches before the step `until` may be read meanwhile; None: any that follow.
        """
        job = self._job
        if self._dataset.streamed is not None:
            inputs, labels = self._streamed(step, until)
            return self._augmented_share(inputs, step), labels
        inputs, labels = self._dataset.batch(step, job.batch, job.steps_per_epoch, job.order_seed)
        inputs = self._augment(inputs, step)
        if self._ranks is None:
            return inputs, labels
        # The draws of an augmentation are those of the whole batch, so each rank makes all of it.
        rows = self._ranks.share(len(inputs))
        return inputs[rows], labels[rows]

    def _augmented_share(self, inputs: Tensor, step: int) -> Tensor:
        """Return the augmented inputs of this rank's share of a streamed batch."""
        if self._ranks is None or not self._has_augmentations:
            return self._augment(inputs, step)
        # The other rows are not read. The draws are those of the whole batch all the same.
        examples = min(self._job.batch, self._dataset.examples)
        rows = self._ranks.share(examples)
        whole = inputs.new_zeros((examples, *inputs.shape[1:]))
        whole[rows] = inputs
        return self._augment(whole, step)[rows]

    def _streamed(self, step: int, until: int | None) -> tuple[Tensor, Tensor]:
        dataset, in_reading = self._dataset, self._in_reading
        assert dataset.streamed is not None
        last = step + AHEAD if until is None else max(step, min(step + AHEAD, until - 1))
        for other in list(in_reading):
            # A mask update asks for the batch of a step once more, so that one stays.
            if not step <= other <= last:
                in_reading.pop(other).cancel()
        for number in range(step, last + 1):
            if number not in in_reading:
                in_reading[number] = self._begin(number)
        inputs, labels = dataset.streamed.to_device(in_reading[step])
        return dataset.normalised(inputs), labels

    def _begin(self, step: int) -> BatchInReading:
        job, dataset = self._job, self._dataset
        assert dataset.streamed is not None
        boxes = None
        if self._crop is not None:
            boxes = partial(self._crop.draw_box, step // job.steps_per_epoch)
        indices = dataset.batch_indices(step, job.batch, job.steps_per_epoch, job.order_seed)
        if self._ranks is not None:
            indices = indices[self._ranks.share(len(indices))]
        return dataset.streamed.begin(indices, boxes)


class RandomCrop:
    """The augmentation of a training that streamed images are cropped by, as they are read."""

    def __init__(self, augmentation: Augmentation, position: int, seed: int):
        self.position = position
        self._augmentation = augmentation
        self._seed = seed

    @classmethod
    def of(
        cls, augmentations: list[Augmentation], seed: int, shape: tuple[int, ...]
    ) -> RandomCrop | None:
        """Return the first augmentation that draws boxes; None where there is none."""
        for position, augmentation in enumerate(augmentations):
            rng = stream(seed, Stream.AUGMENTATION, position)
            # One that does not crop says so by returning None.
            if len(shape) == 3 and augmentation.box(*shape[1:], rng) is not None:
                return cls(augmentation, position, seed)
        return None

    def draw_box(self, epoch: int, index: int) -> DrawBox:
        """Return how an example is cropped in an epoch."""
        # By example and epoch: neither threads nor the division into batches change a draw.
        labels = (self._seed, Stream.AUGMENTATION, self.position, epoch, index)

        def draw(height: int, width: int) -> Box:
            box = self._augmentation.box(height, width, stream(*labels))
            assert box is not None
            return box

        return draw


def _cancel(batches: dict[int, BatchInReading]) -> None:
    for batch in batches.values():
        batch.cancel()
