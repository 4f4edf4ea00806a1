"""Searches against a lab that only writes down what it is asked."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.steps import Clock
from lotteryfw.std.searches import Imp, IterativeEdgePopup, OneShot, RandomPruning

Batch = Generator[tuple[str, ...], list[str], list[str]]


class PaperLab:
    """Tickets and trainings are their own descriptions: "prune(dense, dense!, 2)" trained is that with a "!"."""

    def __init__(self) -> None:
        self.cuts = 0
        self.records: list[tuple[int, str, str]] = []

    def dense(self) -> str:
        return "dense"

    def train(self, ticket: str) -> Generator[tuple[str, ...], list[str], str]:
        (trained,) = yield from self.train_all([ticket])
        return trained

    def train_all(self, tickets: list[str]) -> Batch:
        return (yield tuple(tickets))

    def prune(self, ticket: str, trained: str, times: int = 1) -> str:
        self.cuts += 1
        return f"prune({ticket}, {trained}, {times})"

    def prune_randomly(self, ticket: str, trained: str, times: int = 1) -> str:
        self.cuts += 1
        return f"prune_randomly({ticket}, {trained}, {times})"

    def record(self, level: int, ticket: str, trained: str) -> None:
        self.records.append((level, ticket, trained))


def drive(search: SearchAlgorithm) -> tuple[PaperLab, list[tuple[str, ...]]]:
    """Runs the search; what it asked for, batch by batch."""
    lab, asked = PaperLab(), []
    running = search.search(lab)
    try:
        batch = next(running)
        while True:
            asked.append(batch)
            batch = running.send([f"{ticket}!" for ticket in batch])
    except StopIteration:
        return lab, asked


def test_imp_trains_cuts_and_trains_again() -> None:
    lab, asked = drive(Imp(levels=2))
    first = "prune(dense, dense!, 1)"
    second = f"prune({first}, {first}!, 1)"
    assert asked == [("dense",), (first,), (second,)]
    assert lab.records == [
        (0, "dense", "dense!"),
        (1, first, f"{first}!"),
        (2, second, f"{second}!"),
    ]
    assert lab.cuts == 2  # none after the last level


@pytest.mark.parametrize(("search", "cut"), [(OneShot, "prune"), (RandomPruning, "prune_randomly")])
def test_one_cut_for_each_level_and_all_trained_together(
    search: type[SearchAlgorithm], cut: str
) -> None:
    lab, asked = drive(search(levels=3))
    tickets = tuple(f"{cut}(dense, dense!, {times})" for times in (1, 2, 3))
    assert asked == [("dense",), tickets]
    assert lab.records == [
        (0, "dense", "dense!"),
        *((i, t, f"{t}!") for i, t in enumerate(tickets, 1)),
    ]


@pytest.mark.parametrize("search", [Imp, OneShot, RandomPruning])
def test_no_levels_is_the_dense_network_alone(search: type[SearchAlgorithm]) -> None:
    lab, asked = drive(search(levels=0))
    assert [batch for batch in asked if batch] == [("dense",)]
    assert lab.records == [(0, "dense", "dense!")]


@pytest.mark.parametrize("search", [Imp, OneShot, RandomPruning])
def test_the_papers_24_levels(search: type[SearchAlgorithm]) -> None:
    assert search().levels == 24
    with pytest.raises(ValidationError):
        search(levels=-1)


@given(cycles=st.integers(1, 60), total=st.integers(1, 300))
def test_cycles_share_out_the_training_to_the_step(cycles: int, total: int) -> None:
    lengths = IterativeEdgePopup(cycles=cycles).lengths(Clock(total, 10))
    assert (len(lengths), sum(lengths)) == (cycles, total)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


def test_a_cycle_may_have_a_length_of_its_own() -> None:
    assert IterativeEdgePopup(densities=[0.5, 0.2], cycle="1ep").lengths(Clock(300, 10)) == [10, 10]
