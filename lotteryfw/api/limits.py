"""Limits on what a recipe or a file may ask for, so that a mistake gets an answer at once.

Each limit has an environment variable that raises it. docs/reference/environment.md lists them.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lotteryfw.api.errors import UsageError


@dataclass(frozen=True)
class Limit:
    """A limit: the environment variable that sets it, and its default."""

    variable: str
    default: int

    @property
    def value(self) -> int:
        """The limit in force.

        Raises UsageError where the variable is not a positive integer.
        """
        text = os.environ.get(self.variable)
        # An empty variable is how shells unset one.
        if text is None or not text.strip():
            return self.default
        try:
            value = int(text)
        # 0 gets the message that any other wrong value gets.
        except ValueError:
            value = 0
        if value < 1:
            raise UsageError(f"{self.variable}: must be a positive integer, not {text[:40]!r}")
        return value

    @property
    def remedy(self) -> str:
        """The advice to set the variable."""
        return f"set {self.variable} to raise the limit"

    def exceeded_by(self, number: int) -> bool:
        """Return whether `number` is above the limit."""
        return number > self.value

    def excess(self, number: int, what: str) -> str:
        """Say that there are `number` of something, and what the limit is.

        >>> Limit("LOTTERYFW_MAX_CELLS", 100_000).excess(1_000_000, "cells")
        '1,000,000 cells, more than the limit of 100,000'
        """
        return f"{readable(number)} {what}, more than the limit of {readable(self.value)}"


RECIPE_BYTES = Limit("LOTTERYFW_MAX_RECIPE_BYTES", 2_000_000)
"""Size of a recipe file, and of a recipe that it extends."""
PLUGIN_BYTES = Limit("LOTTERYFW_MAX_PLUGIN_BYTES", 2_000_000)
"""Size of a plugin file."""
EXTENDS = Limit("LOTTERYFW_MAX_EXTENDS", 32)
"""Recipes in a chain of `extends`."""
DEPTH = Limit("LOTTERYFW_MAX_DEPTH", 32)
"""Depth of nested tables and lists in a recipe. Python's limit on recursion is about 1,000."""
ENTRIES = Limit("LOTTERYFW_MAX_ENTRIES", 10_000)
"""Entries of a list that is neither `seeds` nor an axis of a grid: layers, augmentations, …"""
CELLS = Limit("LOTTERYFW_MAX_CELLS", 100_000)
"""Cells of a recipe: the product of its axes and seeds, over all studies."""
LEVELS = Limit("LOTTERYFW_MAX_LEVELS", 10_000)
"""Levels, or cycles, of a search."""
NUMBER = Limit("LOTTERYFW_MAX_NUMBER", 2**40)
"""Any whole number in a recipe that is not a seed, and the steps of a training."""
SEED = Limit("LOTTERYFW_MAX_SEED", 2**63 - 1)
"""Any seed."""
NAME = Limit("LOTTERYFW_MAX_NAME", 100)
"""Characters in the name of a recipe or study: file names are made of them."""
LIMITS = (
    RECIPE_BYTES, PLUGIN_BYTES, EXTENDS, DEPTH, ENTRIES, CELLS, LEVELS, NUMBER, SEED, NAME
)  # fmt: skip
MODEL_BYTES = "LOTTERYFW_MAX_MODEL_BYTES"
"""Environment variable: the bytes that a network may take, instead of the machine's memory."""


def check_variables() -> None:
    """Raise UsageError where the environment variable of a limit is not a positive integer."""
    for limit in (*LIMITS, model_bytes()):
        _ = limit.value


def model_bytes() -> Limit:
    """Return the limit on the bytes of a network's parameters and buffers: the memory present."""
    return Limit(MODEL_BYTES, memory_bytes())


def memory_bytes() -> int:
    """Return the bytes of memory of this machine, or of the control group of this process."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system tells
        memory = 2**63
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text()
    except OSError:
        return memory
    # Without a limit a control group says "max".
    return min(memory, int(text)) if text.strip().isdigit() else memory


def readable(number: int) -> str:
    """Return an integer of any size as text; Python refuses to write more than 4,300 digits.

    >>> readable(-2_000), readable(2**80), readable(2**63 - 1), readable(10**30)
    ('-2,000', '2^80', '2^63 - 1', 'about 2^99')
    """
    if abs(number) < 10**15:
        return f"{number:,}"
    sign = "-" if number < 0 else ""
    # Written in full, such a number would fill the message.
    power = abs(number).bit_length() - 1
    if number == 2 ** (power + 1) - 1:
        return f"2^{power + 1} - 1"
    exact = abs(number) == 2**power
    return f"{sign}2^{power}" if exact else f"about {sign}2^{power}"


def read_regular(path: Path, limit: Limit) -> bytes:
    """Return the bytes of a regular file that is no larger than `limit`.

    Raises OSError where the file cannot be read, and UsageError, without the path, where it is not
    a regular file or is too large. Neither waits for the writer of a pipe nor reads a device.
    """
    # Before it is opened: opening some devices has effects of its own.
    _require_regular(os.stat(path).st_mode)
    # a pipe that has taken the file's place since would wait for its writer
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _require_regular(status.st_mode)
        if limit.exceeded_by(status.st_size):
            raise UsageError(f"has {limit.excess(status.st_size, 'bytes')} ({limit.remedy})")
        # One byte more than allowed shows that there is more.
        content = file.read(limit.value + 1)
    if limit.exceeded_by(len(content)):  # files of /proc tell no size
        raise UsageError(
            f"has more bytes than the limit of {readable(limit.value)} ({limit.remedy})"
        )
    return content


def _require_regular(mode: int) -> None:
    kinds = {
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise UsageError(f"is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a regular file")
