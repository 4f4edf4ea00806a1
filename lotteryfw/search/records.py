"""The levels that a search records."""

from __future__ import annotations

from typing import NamedTuple

from lotteryfw.api.errors import ContractError
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.context import SearchContext
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.untrained import Untrained


class Record(NamedTuple):
    """A level that a search recorded."""

    level: int
    ticket: Ticket
    trained: Trained
    variant: str = "ticket"


class LevelRecords:
    """The records of one cell's search, in order."""

    def __init__(self, context: SearchContext):
        self._context = context
        self.records: list[Record] = []

    def add(self, level: int, ticket: Ticket, trained: Trained, variant: str = "ticket") -> None:
        # A swapped argument is found here, where the search can be named, and not in the report.
        is_valid = isinstance(level, int) and isinstance(ticket, Ticket)
        if not is_valid or not isinstance(trained, Trained):
            types = ", ".join(type(value).__name__ for value in (level, ticket, trained))
            who = describe(self._context.specs["search"])
            raise ContractError(
                f"{who} called lab.record(level, ticket, trained) with {types}; "
                "an int, a Ticket and a Trained belong there"
            )
        if isinstance(trained.outcome, Untrained):
            who = describe(self._context.specs["search"])
            raise ContractError(
                f"{who} records level {level} with what lab.probe returned, which has no figures: "
                "record `yield from lab.train(lab.as_is(ticket))` for a ticket as it is"
            )
        self.records.append(Record(level, ticket, trained, variant))


def nothing_recorded(spec: Spec) -> str:
    """Return the message for a search that ended without a level, so that there is no result."""
    return (
        f"{describe(spec)} ended without a `lab.record`, so that it has no results; record every "
        "level with `lab.record(level, ticket, trained)`"
    )
