"""Every error that lotteryfw raises on purpose, each with the exit code it ends a command with.

An error's text is written for the person who has to act on it: what was wrong, where, what would
be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


class LotteryError(Exception):
    """Base of all of lotteryfw's errors.

    A command ends with `exit_code`; 2 is for a mistake in what the user gave.
    """

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe: where it stands, what is wrong, and what would be right."""

    where: str
    key: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        # What a recipe holds may be anything, and a terminal obeys control characters.
        location = ": ".join(printable(part, 300) for part in (self.where, self.key) if part)
        remedy = f" ({printable(self.remedy, 2000)})" if self.remedy else ""
        return f"{location}: {printable(self.problem, 2000)}{remedy}"


class RecipeError(LotteryError):
    """A recipe that cannot be run. Carries every fault found, not just the first."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault]):
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class UsageError(LotteryError):
    """Something else the user gave cannot be used: an unknown name, a read-only folder, …"""

    exit_code = 2


class DataError(LotteryError):
    """A data set is not where it was looked for, or is not what it should be."""

    exit_code = 2


class PluginError(LotteryError):
    """A plugin could not be loaded, or a component broke while it was used."""


class MemoryFull(LotteryError):
    """The machine has not enough memory for something, which is no fault of a component."""


def says_memory_is_full(error: BaseException) -> bool:
    """Return True for an error that says that the memory, or that of a device, is full."""
    # On the CPU torch's allocator raises a plain RuntimeError.
    is_allocators = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_allocators or _is_of_full_device(error)


def _is_of_full_device(error: BaseException) -> bool:
    # torch's class is told by its name, since this module does without torch
    return isinstance(error, RuntimeError) and type(error).__name__ == "OutOfMemoryError"


@contextmanager
def naming(component: str, call: str) -> Iterator[None]:
    """Turn what a component raises into a PluginError that names it and the call, as "load()".

    lotteryfw's own errors pass: they say already who is to blame. So does the error of a device
    whose memory is full. Raises MemoryFull where that of the machine is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LotteryError) or _is_of_full_device(error):
            raise
        if says_memory_is_full(error):
            text = f"the memory is full, in {call} of {component}: {type(error).__name__}: {error}"
            raise MemoryFull(text) from error
        text = f"{component} broke in {call}: {type(error).__name__}: {error}"
        raise PluginError(text) from error


class ContractError(PluginError):
    """A component returned something its kind does not allow: a wrong shape or dtype, NaN, …"""


class StoreError(LotteryError):
    """The store or a run folder could not be read or written."""


class TrainingDiverged(LotteryError):
    """A training has no finite numbers any more. `step` is where that was noticed.

    `learns_mask`: it may be scores that are not finite, of which masks, and losses, can be made
    all the same.
    """

    def __init__(self, step: int, learns_mask: bool = False):
        self.step = step
        what = "the loss or the scores of the mask" if learns_mask else "the loss"
        super().__init__(f"{what} stopped being finite at or before step {step}")


class NothingToPrune(LotteryError):
    """A round of pruning would remove no weight, so a search that prunes step by step ends."""


class NotKnownYet(LotteryError):
    """A result was read while planning, before any training, so the rest of a plan is not known."""


def printable(text: str, longest: int) -> str:
    """Return the text with control characters and broken UTF-8 escaped, cut if it is too long.

    What a message quotes may come from a file that nobody has looked at, and a terminal obeys
    control characters.

    >>> printable("a\\x1b[2Jb", 100)
    'a\\\\x1b[2Jb'
    """
    if len(text) > longest:
        # Both ends: a long path differs from another in its last part.
        half = longest // 2
        text = f"{text[:half]} … {text[-half:]}"
    if text.isprintable():
        return text
    characters = [
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    ]
    return "".join(characters)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a remedy for a misspelt name: the closest valid ones, or all where none is close."""
    # Sorted, so that a message is the same each time.
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{match}'" for match in close) + "?"
    return "known: " + ", ".join(names) if names else ""
