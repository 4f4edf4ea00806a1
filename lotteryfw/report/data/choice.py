"""A few of many items, evenly chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly_chosen(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items (at least two), evenly, with the first and the last."""
    last = len(items) - 1
    if last < most:
        return list(items)
    chosen = []
    for index in range(most):
        # steps of at least one item, so that none is chosen twice
        chosen.append(items[round(index * last / (most - 1))])
    return chosen


def partly_chosen(chosen: int, count: int, name: str) -> str:
    """Return a sentence on what is left out of `count` items; empty if nothing is.

    >>> partly_chosen(6, 12, "levels")
    'Shown are 6 of 12 levels.'
    """
    return f"Shown are {chosen:,} of {count:,} {name}." if chosen < count else ""
