"""The trial of searches: played to the end in a lab where trainings take no time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any

from lotteryfw.errors import LotteryError
from lotteryfw.jobs import Gradient, Train
from lotteryfw.lab import Lab, Record
from lotteryfw.testkit.bench import MadeUp, make_lab
from lotteryfw.testkit.subject import Subject
from lotteryfw.views import Ticket, Trained

PATIENCE = 1000
"""How many times a search may ask before it is held to be endless."""


def try_search(subject: Subject) -> None:
    """It ends, records levels that get sparser, asks for jobs only, and does the same when it is played again."""
    lab = make_lab(search=subject.component)
    asked = _play(subject, lab)
    subject.demand(bool(lab.records), "search() records no level; it needs `lab.record(level, ticket, trained)`")
    for record in lab.records:
        _try_record(subject, record)
    ordered = sorted(lab.records, key=lambda record: record.level)
    for before, after in pairwise(ordered):
        subject.demand(before.level != after.level, f"search() records level {after.level} twice")
        sparser = _alive(after.ticket) <= _alive(before.ticket)
        subject.demand(
            sparser,
            f"search() keeps more weights at level {after.level} ({_alive(after.ticket)}) than at level "
            f"{before.level} ({_alive(before.ticket)})",
        )
    again = _play(subject, make_lab(search=subject.component))
    subject.demand(asked == again, "search() asked for other jobs when it was played again: a study could not resume")


def _play(subject: Subject, lab: Lab) -> list[str]:
    """Answers everything that the search asks for until it ends; returns the keys of the jobs, in order."""
    keys: list[str] = []
    try:
        search = lab.cell.search.search(lab)
        subject.demand(isinstance(search, Generator), "search() is no generator: it needs `yield from lab.train(…)`")
        asked: Any = next(search)
        for _ in range(PATIENCE):
            jobs = isinstance(asked, Sequence) and all(isinstance(job, Train | Gradient) for job in asked)
            subject.demand(jobs, f"search() yields {type(asked).__name__}; ask with `yield from lab.train(ticket)`")
            keys += [job.key for job in asked]
            asked = search.send([MadeUp(job) for job in asked])
    except StopIteration:
        return keys
    except LotteryError:
        raise
    except Exception as error:
        subject.demand(False, f"search() raised {type(error).__name__}: {error}")
    subject.demand(False, f"search() asked {PATIENCE} times and has not ended")
    return keys


def _try_record(subject: Subject, record: Record) -> None:
    level = record.level
    subject.demand(type(level) is int and level >= 0, f"search() records level {level!r}; levels are 0, 1, 2, …")
    made = isinstance(record.ticket, Ticket) and isinstance(record.trained, Trained)
    subject.demand(made, f"search() records something else than a Ticket and its Trained at level {level}")
    own = record.trained.ticket.origin == record.ticket.origin
    subject.demand(own, f"search() records a ticket with another one's training at level {level}")


def _alive(ticket: Ticket) -> int:
    return sum(int(mask.sum()) for mask in ticket.mask.values())
