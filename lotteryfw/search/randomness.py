"""The seeds of a cell's streams: its own, or those that a recipe sets for single streams."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from lotteryfw.api.rng import Stream, seed_of

if TYPE_CHECKING:
    from lotteryfw.api.tickets import Ticket


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

        def chosen(value: int | None) -> int:
            return seed if value is None else value

        return Seeds(
            init=chosen(self.init),
            order=chosen(self.order),
            augment=chosen(self.augment),
            ties=chosen(self.ties),
            scores=chosen(self.scores),
            repeats_order=self.repeats_order,
        )


@dataclass(frozen=True)
class TrainingSeeds:
    """The seeds of one training: 0 for a stream that nothing in it draws from."""

    order: int
    augment: int
    masks: int | None
    """Draws the masks of a network whose mask is learned; None for any other."""


@dataclass(frozen=True)
class Seeds:
    """The seeds of a cell's streams, where they may differ from the cell's own."""

    init: int
    order: int
    augment: int
    ties: int
    scores: int
    repeats_order: bool = False

    def of_training(self, ticket: Ticket, is_augmented: bool) -> TrainingSeeds:
        """Return the seeds of a ticket's training.

        A stream that decides nothing has the seed 0, so that it distinguishes no keys.
        """
        level = ticket.level
        order, augment = self.order, self.augment
        masks = self.scores if ticket.learns_mask else None
        if level and ticket.learns_mask:
            # Every cycle has a data order and masks of its own, whatever the recipe says: with
            # the same ones, a cycle would repeat the last.
            order = _derived(order, Stream.CYCLE, level)
            masks = _derived(self.scores, Stream.CYCLE, level)
        if level and not self.repeats_order:
            augment = _derived(augment, Stream.LEVEL, level)
            if not ticket.learns_mask:
                order = _derived(order, Stream.LEVEL, level)
        if ticket.order:
            # A copy of a training, under a data order and augmentation of its own.
            order = _derived(order, Stream.COPY, ticket.order)
            augment = _derived(augment, Stream.COPY, ticket.order)
        if ticket.point.steps == 0:
            # A network that is only measured sees no batch.
            return TrainingSeeds(0, 0, masks)
        return TrainingSeeds(order, augment if is_augmented else 0, masks)


@lru_cache(maxsize=4096)  # a plan asks for the same few seeds for each of its trainings
def _derived(seed: int, purpose: Stream, level: int) -> int:
    return seed_of(seed, purpose, level)
