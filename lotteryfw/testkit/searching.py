"""The trial of searches: run to their end in a lab where trainings take no time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any, cast

from lotteryfw.api.errors import LotteryError, NothingToPrune
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.jobs import Job, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.records import Record
from lotteryfw.search.requests import JobRequest
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fake_lab import FakeOutcome, make_lab

MAX_REQUESTS = 1000
"""A search that asks this many times counts as endless."""


def try_search(trial: ComponentTrial) -> None:
    """Require a search that ends, records levels that get sparser, and repeats its jobs."""
    search = cast(SearchAlgorithm, trial.component)
    lab = make_lab(search=search)
    jobs = _run(trial, lab)
    trial.require(
        bool(lab.records),
        "search() records no level; it needs `lab.record(level, ticket, trained)`",
    )
    for record in lab.records:
        _try_record(trial, lab, record)
    _try_learning(trial, search, jobs)

    variants = ("ticket", *search.variants)
    by_variant: dict[str, list[Record]] = {variant: [] for variant in variants}
    for record in lab.records:
        trial.require(
            record.variant in by_variant,
            f"search() records under the variant {record.variant}, which is not in its `variants`",
        )
        by_variant[record.variant].append(record)
    for records in by_variant.values():
        # a search may record its levels in any order
        _try_order(trial, sorted(records, key=lambda record: record.level))

    # a run that resumes plays its searches again, and finds stored results by their keys
    again = _run(trial, make_lab(search=search))
    trial.require(
        _keys(jobs) == _keys(again),
        "search() asked for other jobs when it was played again: a study could not resume",
    )


def _keys(jobs: Sequence[Job]) -> list[str]:
    return [job.key for job in jobs]


def _try_order(trial: ComponentTrial, records: Sequence[Record]) -> None:
    """Require that the levels of one variant, given in order, differ and keep no more weights."""
    for before, after in pairwise(records):
        trial.require(before.level != after.level, f"search() records level {after.level} twice")
        kept_before = _kept(before.ticket)
        kept_after = _kept(after.ticket)
        trial.require(
            kept_after <= kept_before,
            f"search() keeps more weights at level {after.level} ({kept_after}) than at level "
            f"{before.level} ({kept_before})",
        )


def _try_learning(trial: ComponentTrial, search: SearchAlgorithm, jobs: Sequence[Job]) -> None:
    """Require a parametrization in the recipes of a search that learns masks, and of no other.

    The same holds for a mask update and a search whose trainings change masks.
    """
    learns = any(isinstance(job, Train) and job.parametrization is not None for job in jobs)
    has_parametrization = "parametrization" in (*search.required, *search.optional)
    trial.require(
        has_parametrization or not learns,
        "search() has masks learned, so its class must be a MaskSearch",
    )
    trial.require(
        learns or not has_parametrization,
        "its recipe has a parametrization, but search() has no mask learned",
    )
    updates = any(isinstance(job, Train) and job.mask_update is not None for job in jobs)
    has_update = "mask_update" in (*search.required, *search.optional)
    trial.require(
        has_update or not updates,
        'search() has masks updated in training, so "mask_update" must be in its `required` or '
        "`optional`",
    )
    trial.require(
        updates or "mask_update" not in search.required,
        "its recipe must have a mask update, but search() has no mask updated in training",
    )


def _run(trial: ComponentTrial, lab: CellLab) -> list[Job]:
    """Answer every request of the search until it ends; return its jobs, in order."""
    jobs: list[Job] = []
    try:
        search = lab.cell.search.search(lab)
        trial.require(
            isinstance(search, Generator),
            "search() is no generator: it needs `yield from lab.train(…)`",
        )
        requests: Any = next(search)
        for _ in range(MAX_REQUESTS):
            are_requests = isinstance(requests, Sequence) and all(
                isinstance(request, JobRequest) for request in requests
            )
            trial.require(
                are_requests,
                f"search() yields {type(requests).__name__}; ask with "
                "`yield from lab.train(ticket)`",
            )
            # a request's job is made from its ticket: once, and before the search goes on
            batch = [request.job for request in requests]
            jobs += batch
            requests = search.send([FakeOutcome(job) for job in batch])
    except (StopIteration, NothingToPrune):
        return jobs
    except LotteryError:
        # on purpose: the lab or the search explains what it cannot do
        raise
    except Exception as error:
        trial.require(False, f"search() raised {type(error).__name__}: {error}")
    trial.require(False, f"search() asked {MAX_REQUESTS} times and has not ended")
    return jobs


def _try_record(trial: ComponentTrial, lab: CellLab, record: Record) -> None:
    level = record.level
    trial.require(
        type(level) is int and level >= 0,
        f"search() records level {level!r}; levels are 0, 1, 2, …",
    )
    has_types = isinstance(record.ticket, Ticket) and isinstance(record.trained, Trained)
    trial.require(
        has_types, f"search() records something else than a Ticket and its Trained at level {level}"
    )
    trained = record.trained.ticket
    belongs = record.ticket.origin == trained.origin
    # a ticket may be recorded with the figures of the training that found its mask
    if not belongs and (trained.learns_mask or trained.updates_mask):
        for rewound in (False, True):
            extracted = lab.extract_ticket(trained, record.trained, rewound=rewound)
            belongs = belongs or record.ticket.origin == extracted.origin
    trial.require(
        belongs, f"search() records a ticket with another one's training at level {level}"
    )


def _kept(ticket: Ticket) -> int:
    return sum(int(mask.sum()) for mask in ticket.mask.values())
