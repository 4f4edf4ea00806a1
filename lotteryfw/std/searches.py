"""Search algorithms: in which order tickets are cut and trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from lotteryfw import Lab, Search, SearchAlgorithm, Ticket, Trained

Levels = Annotated[int, Field(ge=0, description="How many times the network is cut; 0 trains the dense one only.")]


class Imp(SearchAlgorithm):
    """Iterative magnitude pruning: train, cut, rewind, and again."""

    use = "imp"
    formula = "dense → train → cut → rewind → train → cut → …"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 1"
    default = True

    levels: Levels = 24

    def search(self, lab: Lab) -> Search[None]:
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record(0, ticket, trained)
        for level in range(1, self.levels + 1):
            ticket = lab.next(ticket, trained)
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)


class OneShot(SearchAlgorithm):
    """One-shot pruning: the dense network is cut once, to each density that iterating would pass."""

    use = "one_shot"
    formula = "dense → train → cut to every level's density → train each"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"

    levels: Levels = 24

    def search(self, lab: Lab) -> Search[None]:
        yield from _cut_once(lab, self.levels, lab.next)


class RandomPruning(SearchAlgorithm):
    """Random masks with the densities, layer by layer, that the scope gives: the control of the others."""

    use = "random_pruning"
    formula = "dense → train → a random mask of every level's density → train each"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"

    levels: Levels = 24

    def search(self, lab: Lab) -> Search[None]:
        yield from _cut_once(lab, self.levels, lab.random)


def _cut_once(lab: Lab, levels: int, cut: Callable[[Ticket, Trained, int], Ticket]) -> Search[None]:
    """Trains the dense network, cuts it anew for each level and asks for all those trainings at once."""
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    tickets = [cut(dense, trained, level) for level in range(1, levels + 1)]
    finished = yield from lab.train_all(tickets)
    for level, (ticket, trained) in enumerate(zip(tickets, finished, strict=True), 1):
        lab.record(level, ticket, trained)
