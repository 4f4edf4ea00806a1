"""The seeds of a cell's streams: its own, or those that a recipe sets for single streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from lotteryfw.api.rng import Stream, seed_of

if TYPE_CHECKING:
    from lotteryfw.api.tickets import Ticket

_Training = tuple[int, int, bool, bool, bool]
"""What tells the seeds of one training of a cell from another's (see `Seeds.of_training`)."""


@dataclass(frozen=True)
class Randomness:
    """The seeds of single streams; None stands for the cell's seed.

    `repeats_order`: every level sees the data order and the augmentations of the dense run.
    Otherwise every level draws its own.
    """

    init: int | None = None
    order: int | None = None
    augment: int | None = None
    ties: int | None = None
    scores: int | None = None
    repeats_order: bool = False

    def seeds(self, seed: int) -> Seeds:
        """Return the seeds of a cell that has this seed."""
        return _seeds(self, seed)


# The cells of a large grid have few seeds, so they share what `Seeds` remembers.
@lru_cache
def _seeds(randomness: Randomness, seed: int) -> Seeds:
    def chosen(value: int | None) -> int:
        return seed if value is None else value

    return Seeds(
        init=chosen(randomness.init),
        order=chosen(randomness.order),
        augment=chosen(randomness.augment),
        ties=chosen(randomness.ties),
        scores=chosen(randomness.scores),
        repeats_order=randomness.repeats_order,
    )


@dataclass(frozen=True)
class TrainingSeeds:
    """The seeds of one training: 0 for a stream that nothing in it draws from."""

    order: int
    augment: int
    masks: int | None
    """Draws the masks of a network whose mask is learned; None for any other."""

    @cached_property
    def digest_part(self) -> str:
        """The seeds as a part of a job's digest."""
        return f"{self.order}\x1f{self.augment}\x1f{self.masks}"


@dataclass(frozen=True)
class Seeds:
    """The seeds of a cell's streams, where they may differ from the cell's own."""

    init: int
    order: int
    augment: int
    ties: int
    scores: int
    repeats_order: bool = False
    _trainings: dict[_Training, TrainingSeeds] = field(
        default_factory=dict, compare=False, repr=False
    )

    def of_training(self, ticket: Ticket, is_augmented: bool) -> TrainingSeeds:
        """Return the seeds of a ticket's training.

        A stream that decides nothing has the seed 0, so that it distinguishes no keys.
        """
        is_measured = ticket.point.steps == 0
        training = (ticket.level, ticket.order, ticket.learns_mask, is_measured, is_augmented)
        # A plan asks for the same few seeds for each of its hundreds of thousands of trainings.
        seeds = self._trainings.get(training)
        if seeds is None:
            seeds = self._trainings[training] = self._of_training(*training)
        return seeds

    def _of_training(
        self, level: int, copy: int, learns_mask: bool, is_measured: bool, is_augmented: bool
    ) -> TrainingSeeds:
        order, augment = self.order, self.augment
        masks = self.scores if learns_mask else None
        if level and learns_mask:
            # Every cycle has a data order and masks of its own, whatever the recipe says: with
            # the same ones, a cycle would repeat the last.
            order = seed_of(order, Stream.CYCLE, level)
            masks = seed_of(self.scores, Stream.CYCLE, level)
        if level and not self.repeats_order:
            augment = seed_of(augment, Stream.LEVEL, level)
            if not learns_mask:
                order = seed_of(order, Stream.LEVEL, level)
        if copy:
            # A copy of a training, under a data order and augmentation of its own.
            order = seed_of(order, Stream.COPY, copy)
            augment = seed_of(augment, Stream.COPY, copy)
        if is_measured:
            # A network that is only measured sees no batch.
            return TrainingSeeds(0, 0, masks)
        return TrainingSeeds(order, augment if is_augmented else 0, masks)
