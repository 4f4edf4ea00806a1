"""Numbers in messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1.

    >>> counted(1, "cell"), counted(1200, "step")
    ('1 cell', '1,200 steps')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
