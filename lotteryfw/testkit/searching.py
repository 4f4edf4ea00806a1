"""The trial of searches: played to the end in a lab where trainings take no time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any, cast

from lotteryfw.api.errors import LotteryError
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.jobs import Job, Train
from lotteryfw.search.lab import CellLab, Record
from lotteryfw.search.requests import JobRequest
from lotteryfw.testkit.bench import MadeUp, make_lab
from lotteryfw.testkit.subject import Subject

PATIENCE = 1000
"""How many times a search may ask before it is held to be endless."""


def try_search(subject: Subject) -> None:
    """It ends, records levels that get sparser, asks for jobs only, and does the same when it is played again."""
    search = cast(SearchAlgorithm, subject.component)
    lab = make_lab(search=search)
    asked = _play(subject, lab)
    subject.demand(
        bool(lab.records),
        "search() records no level; it needs `lab.record(level, ticket, trained)`",
    )
    for record in lab.records:
        _try_record(subject, lab, record)
    _try_learning(subject, search, asked)
    own = sorted({record.variant for record in lab.records} - {"ticket", *search.variants})
    subject.demand(
        not own,
        f"search() records under the variant {', '.join(own)}, which is not in its `variants`",
    )
    for variant in ("ticket", *search.variants):
        _try_order(
            subject,
            sorted(
                (each for each in lab.records if each.variant == variant),
                key=lambda each: each.level,
            ),
        )
    again = _play(subject, make_lab(search=search))
    same = [job.key for job in asked] == [job.key for job in again]
    subject.demand(
        same, "search() asked for other jobs when it was played again: a study could not resume"
    )


def _try_order(subject: Subject, records: Sequence[Record]) -> None:
    """The levels of one variant, in order."""
    for before, after in pairwise(records):
        subject.demand(before.level != after.level, f"search() records level {after.level} twice")
        sparser = _alive(after.ticket) <= _alive(before.ticket)
        subject.demand(
            sparser,
            f"search() keeps more weights at level {after.level} ({_alive(after.ticket)}) than at level "
            f"{before.level} ({_alive(before.ticket)})",
        )


def _try_learning(subject: Subject, search: SearchAlgorithm, asked: Sequence[Job]) -> None:
    """Its recipes have a parametrization if, and only if, it has a mask learned."""
    learns = any(isinstance(job, Train) and job.parametrization is not None for job in asked)
    has_parametrization = "parametrization" in (*search.required, *search.optional)
    subject.demand(
        has_parametrization or not learns,
        "search() has masks learned, so its class must be a MaskSearch",
    )
    subject.demand(
        learns or not has_parametrization,
        "its recipe has a parametrization, but search() has no mask learned",
    )


def _play(subject: Subject, lab: CellLab) -> list[Job]:
    """Answers everything that the search asks for until it ends; returns the jobs, in order."""
    jobs: list[Job] = []
    try:
        search = lab.cell.search.search(lab)
        subject.demand(
            isinstance(search, Generator),
            "search() is no generator: it needs `yield from lab.train(…)`",
        )
        asked: Any = next(search)
        for _ in range(PATIENCE):
            right = isinstance(asked, Sequence) and all(
                isinstance(request, JobRequest) for request in asked
            )
            subject.demand(
                right,
                f"search() yields {type(asked).__name__}; ask with `yield from lab.train(ticket)`",
            )
            now = [request.job for request in asked]
            jobs += now
            asked = search.send([MadeUp(job) for job in now])
    except StopIteration:
        return jobs
    except LotteryError:
        raise
    except Exception as error:
        subject.demand(False, f"search() raised {type(error).__name__}: {error}")
    subject.demand(False, f"search() asked {PATIENCE} times and has not ended")
    return jobs


def _try_record(subject: Subject, lab: CellLab, record: Record) -> None:
    level = record.level
    subject.demand(
        type(level) is int and level >= 0,
        f"search() records level {level!r}; levels are 0, 1, 2, …",
    )
    made = isinstance(record.ticket, Ticket) and isinstance(record.trained, Trained)
    subject.demand(
        made, f"search() records something else than a Ticket and its Trained at level {level}"
    )
    trained = record.trained.ticket
    own = record.ticket.origin == trained.origin
    if (
        not own and trained.learns_mask
    ):  # a ticket may be shown with the figures of the learning that found it
        own = record.ticket.origin == lab.extract_ticket(trained, record.trained).origin
    subject.demand(own, f"search() records a ticket with another one's training at level {level}")


def _alive(ticket: Ticket) -> int:
    return sum(int(mask.sum()) for mask in ticket.mask.values())
