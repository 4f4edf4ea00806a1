"""A few attempts of each kind of fault; `python -m tests.campaign` makes thousands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .damage import PATTERNS, SWAPPED, harm_files, harm_posted_jobs, swap
from .disk import fill_disk
from .harness import Campaign, fast_folder
from .hostile import open_hostile_tickets
from .kills import interrupt, kill

COUNTS = {"object file": 2, "root": 3, "ticket": 2}
"""Attempts of the kinds of files that get more than one."""


@pytest.fixture(scope="module")
def templates() -> Iterator[Campaign]:
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        yield Campaign(Path(folder))


@pytest.fixture
def campaign(templates: Campaign) -> Campaign:
    """A campaign with an empty tally."""
    templates.rows.clear()
    return templates


def assert_no_failures(campaign: Campaign, attempts: int) -> None:
    assert sum(row.attempts for row in campaign.rows.values()) == attempts
    assert not any(row.failures for row in campaign.rows.values()), campaign.table()


@pytest.mark.large
def test_a_killed_run_is_finished_with_the_same_bits(campaign: Campaign) -> None:
    kill(campaign, 2)
    assert_no_failures(campaign, 2)


KINDS = [
    pytest.param(kind, marks=pytest.mark.large) if kind == "object file" else kind
    for kind in PATTERNS
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_no_wrong_figure(campaign: Campaign, kind: str) -> None:
    count = COUNTS.get(kind, 1)
    harm_files(campaign, count, [kind])
    assert_no_failures(campaign, count)


@pytest.mark.parametrize("kind", list(SWAPPED))
def test_swapped_files_give_no_wrong_figure(campaign: Campaign, kind: str) -> None:
    swap(campaign, 1, [kind])
    assert_no_failures(campaign, 1)


def test_a_job_that_is_damaged_on_its_way_gives_no_wrong_figure(campaign: Campaign) -> None:
    harm_posted_jobs(campaign, 1)
    assert_no_failures(campaign, 1)


def test_a_full_disk_loses_nothing(campaign: Campaign) -> None:
    fill_disk(campaign, 2)
    notes = [row.note for row in campaign.rows.values() if row.note]
    if notes:
        pytest.skip(notes[0])
    assert_no_failures(campaign, 2)


def test_hostile_tickets_are_refused_in_words(campaign: Campaign) -> None:
    open_hostile_tickets(campaign, 100)
    assert_no_failures(campaign, 200)


def test_a_signal_ends_a_run_without_a_traceback(campaign: Campaign) -> None:
    interrupt(campaign, 2)
    assert_no_failures(campaign, 2)
