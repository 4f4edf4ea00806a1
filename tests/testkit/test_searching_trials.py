"""The trial of searches notices each kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from support.broken import component

from lotteryfw import (
    ContractError,
    Lab,
    MaskSearch,
    Search,
    SearchAlgorithm,
)
from lotteryfw.testkit import trial

TIMES = count(1)


def nothing(lab: Lab) -> Search[None]:
    yield from lab.train(lab.dense())


def not_a_generator(lab: Lab) -> None:
    lab.train(lab.dense())


def endless(lab: Lab) -> Search[None]:
    while True:
        yield from lab.train(lab.dense())


def strange_question(lab: Lab) -> Search[None]:
    yield lab.dense()


def backwards(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(1, dense, trained)
    ticket = lab.prune(dense, trained)
    lab.record(0, ticket, (yield from lab.train(ticket)))


def twice(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    lab.record(0, dense, trained)


def anothers_training(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, lab.prune(dense, trained), trained)


def different_each_time(lab: Lab) -> Search[None]:
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    yield from lab.train(lab.prune(dense, trained, times=next(TIMES)))


def broken_inside(lab: Lab) -> Search[None]:
    trained = yield from lab.train(lab.dense())
    lab.record(0, trained.tickt, trained)


SEARCH_FAULTS: dict[Callable[[Lab], Any], str] = {
    nothing: "records no level",
    not_a_generator: "is no generator: it needs `yield from",
    endless: "asked 1000 times and has not ended",
    strange_question: "yields Ticket; ask with",
    backwards: r"keeps more weights at level 1 \(120\) than at level 0 \(96\)",
    twice: "records level 0 twice",
    anothers_training: "records a ticket with another one's training",
    different_each_time: "asked for other jobs when it was played again",
    broken_inside: "raised AttributeError: 'Trained' object has no attribute 'tickt'",
}


@pytest.mark.parametrize("search", SEARCH_FAULTS, ids=lambda search: search.__name__)
def test_a_broken_search_is_noticed(search: Callable[[Lab], Any]) -> None:
    with pytest.raises(
        ContractError, match=rf"search 'broken': search\(\) .*{SEARCH_FAULTS[search]}"
    ):
        trial(component(SearchAlgorithm, search=lambda self, lab: search(lab)))


def learning(lab: Lab) -> Search[None]:
    ticket = lab.learn_mask(0.5)
    learned = yield from lab.train(ticket)
    lab.record(1, lab.extract_ticket(ticket, learned), learned)


def not_learning(lab: Lab) -> Search[None]:
    lab.record(0, lab.dense(), (yield from lab.train(lab.dense())))


def another_arm(lab: Lab) -> Search[None]:
    dense = lab.dense()
    lab.record(0, dense, (yield from lab.train(dense)), variant="mine")


def test_a_search_says_whether_it_learns_masks_and_which_arms_it_has() -> None:
    def search(
        play: Callable[[Lab], Any], kind: type[SearchAlgorithm] = SearchAlgorithm, **members: Any
    ) -> type[Any]:
        return component(kind, search=lambda self, lab: play(lab), **members)

    trial(search(learning, MaskSearch))
    trial(search(learning, required={"parametrization": "tries one out"}))
    with pytest.raises(ContractError, match="masks learned, so its class must be a MaskSearch"):
        trial(search(learning))
    with pytest.raises(
        ContractError, match=r"has a parametrization, but search.. has no mask learned"
    ):
        trial(search(not_learning, MaskSearch))
    trial(search(another_arm, variants=("mine",)))
    with pytest.raises(
        ContractError, match="records under the variant mine, which is not in its `variants`"
    ):
        trial(search(another_arm))
