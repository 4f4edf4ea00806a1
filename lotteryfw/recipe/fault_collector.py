"""Collects the problems of a table while its parts are checked one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.pydantic_errors import Problem

T = TypeVar("T")


class FaultCollector:
    """A list of problems, and the path of the table whose problems are added now.

    >>> faults = FaultCollector()
    >>> faults.at("train", "batch").add("must be >= 1, got 0")
    >>> [problem.keys for problem in faults.problems]
    [('train', 'batch')]
    """

    __slots__ = ("_path", "problems")

    def __init__(self, path: Keys = (), problems: list[Problem] | None = None):
        self._path = path
        self.problems: list[Problem] = [] if problems is None else problems

    def at(self, *keys: str | int) -> FaultCollector:
        """Return a collector for what is at these keys; it adds to the same list."""
        return FaultCollector((*self._path, *keys), self.problems)

    def add(self, text: str, remedy: str = "") -> None:
        """Add a problem of what is at this path."""
        self.problems.append(Problem(self._path, text, remedy))

    def add_all(self, problems: Iterable[Problem]) -> None:
        """Add problems whose keys start at this path."""
        for problem in problems:
            keys = (*self._path, *problem.keys)
            self.problems.append(Problem(keys, problem.text, problem.remedy))

    def value_of(self, checked: tuple[T | None, Iterable[Problem]]) -> T | None:
        """Add the problems of a checked value, and return the value, None for an invalid one."""
        value, problems = checked
        self.add_all(problems)
        return value
