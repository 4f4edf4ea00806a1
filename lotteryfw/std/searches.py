"""Search algorithms: in which order tickets are cut and trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lotteryfw import Clock, Lab, MaskSearch, Search, SearchAlgorithm, Step, Ticket, Trained

RETRAINED = "retrained"
Levels = Annotated[
    int, Field(ge=0, description="How many times the network is cut; 0 trains the dense one only.")
]


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
            # by the training just finished, while the values come from the rewind policy's point
            ticket = lab.prune(ticket, trained)
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)


class OneShot(SearchAlgorithm):
    """One-shot pruning: the dense network is cut once, to each density that iterating would pass."""

    use = "one_shot"
    formula = "dense → train → cut to every level's density → train each"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"

    levels: Levels = 24
    train: bool = True
    """Train every ticket; false: measure each as it is, an untrained mask over its starting values."""

    def search(self, lab: Lab) -> Search[None]:
        yield from _cut_once(lab, self.levels, lab.prune, self.train)


class RandomPruning(SearchAlgorithm):
    """Random masks with the densities, layer by layer, that the scope gives: the control of the others."""

    use = "random_pruning"
    formula = "dense → train → a random mask of every level's density → train each"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"

    levels: Levels = 24

    def search(self, lab: Lab) -> Search[None]:
        yield from _cut_once(lab, self.levels, lab.prune_randomly)


def _cut_once(
    lab: Lab, levels: int, cut: Callable[[Ticket, Trained, int], Ticket], train: bool = True
) -> Search[None]:
    """Trains the dense network, cuts it anew for each level and asks for all those trainings at once."""
    dense = lab.dense()
    trained = yield from lab.train(dense)
    lab.record(0, dense, trained)
    # each from the dense network itself, not from the level before: this is what one-shot means
    tickets = [cut(dense, trained, level) for level in range(1, levels + 1)]
    if not train:
        tickets = [lab.as_is(ticket) for ticket in tickets]
    # no level needs the figures of another, so all of them may be trained at the same time
    finished = yield from lab.train_all(tickets)
    for level, (ticket, trained) in enumerate(zip(tickets, finished, strict=True), 1):
        lab.record(level, ticket, trained)


Density = Annotated[
    float, Field(gt=0, le=1, description="Share of the prunable weights that the mask keeps.")
]


class AtInit(SearchAlgorithm):
    """Pruning at initialisation: the initial network is pruned to each density, and then trained.

    Level 0 is the dense network, level n the n-th density. Every density is pruned for itself, and
    round r of R prunes to density^(r/R), with the criterion's scores of the network that is left.
    """

    use = "at_init"
    formula = "w_0 → prune to d^(1/R) → prune to d^(2/R) → … → prune to d → train"
    source = (
        "Lee et al. 2019, SNIP: Single-shot Network Pruning, algorithm 1; Tanaka et al. 2020, "
        "Pruning neural networks without any data by iteratively conserving synaptic flow, "
        "algorithm 1: the rounds"
    )

    densities: Annotated[list[Density], Field(min_length=1)] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
    """The densities to prune to, falling."""
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 1
    """R. SNIP and GraSP prune in one round, SynFlow in 100."""
    train: bool = True
    """Train every ticket; false: measure each as it is, an untrained mask over its first values."""

    @field_validator("densities")
    @classmethod
    def _falling(cls, densities: list[float]) -> list[float]:
        for before, after in pairwise(densities):
            if after >= before:
                raise ValueError(f"must fall from one to the next: {after:g} follows {before:g}")
        return densities

    def search(self, lab: Lab) -> Search[None]:
        dense = lab.dense()
        probed = yield from lab.probe(dense)
        pruned = [(dense, probed)] * len(self.densities)
        for number in range(1, self.rounds):
            tickets = []
            for density, (ticket, scored) in zip(self.densities, pruned, strict=True):
                partial_density = density ** (number / self.rounds)
                tickets.append(lab.prune(ticket, scored, density=partial_density))
            scored_tickets = yield from lab.probe_all(tickets)
            pruned = list(zip(tickets, scored_tickets, strict=True))

        tickets = []
        for level, (density, (ticket, scored)) in enumerate(
            zip(self.densities, pruned, strict=True), 1
        ):
            # so many levels further, so that ties and random masks differ from density to density
            ticket = lab.prune(ticket, scored, times=level, density=density)
            tickets.append(ticket if self.train else lab.as_is(ticket))

        # nothing is trained before all criteria have done their part: one that cannot fails early
        finished = yield from lab.train_all([dense, *tickets], probe=False)
        for level, (ticket, trained) in enumerate(zip([dense, *tickets], finished, strict=True)):
            lab.record(level, ticket, trained)


class DuringTraining(SearchAlgorithm):
    """Pruning during training: one training, whose mask `train.mask_update` changes on the way.

    Level 1 is the mask that the training ended with. The variant "ticket" has the figures of that
    training, "retrained" those of the mask trained afresh, from where the rewind policy says.
    """

    use = "during_training"
    formula = (
        "w_0 under a first mask → train while the mask changes (→ rewind → train the last mask)"
    )
    source = "Zhu & Gupta 2017; Mocanu et al. 2018; Evci et al. 2020; Peste et al. 2021"
    required = {"mask_update": "changes its mask in training, and the mask update says how"}
    variants = (RETRAINED,)

    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What training begins with: 1 is the dense network, less a random mask by the scope."""
    dense: bool = True
    """Also train the dense network, as level 0, to compare with."""
    retrain: bool = False
    """Also train the mask that was found as a ticket, from the start: is it a winning ticket?"""

    def search(self, lab: Lab) -> Search[None]:
        if self.dense:
            dense = lab.dense()
            trained = yield from lab.train(dense)
            lab.record(0, dense, trained)
        start = lab.update_mask(self.density)
        trained = yield from lab.train(start)
        ticket = lab.extract_ticket(start, trained)
        lab.record(1, ticket, trained)
        if self.retrain:
            retrained = yield from lab.train(ticket, RETRAINED)
            lab.record(1, ticket, retrained, RETRAINED)


THRESHOLDED, TRAINED = "thresholded", "trained"
TrainWeights = Annotated[
    bool,
    Field(
        description="Also train the weights of what was found, from the values that the mask was learned over."
    ),
]


class Supermask(MaskSearch):
    """Learned supermasks: a mask is learned over weights that are never trained.

    Level 1 is the mask found: the variant "ticket" has its figures as it was learned (the mean over sampled masks, where
    the parametrization samples), "thresholded" those of the one mask it ends with, "trained" those of the ticket that
    its weights become when they are trained after all.
    """

    use = "supermask"
    formula = "weights at mask1(w_0) → learn a mask → measure (→ train the weights)"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, section 5"
    variants = (THRESHOLDED, TRAINED)

    train_weights: TrainWeights = False

    def search(self, lab: Lab) -> Search[None]:
        ticket = lab.learn_mask()
        learned = yield from lab.train(ticket)
        extracted = lab.extract_ticket(ticket, learned)
        untrained = lab.as_is(extracted)
        lab.record(1, untrained, learned)
        # of 0 steps: the one mask of scores above 0, without sampling
        measured = yield from lab.train(untrained, THRESHOLDED)
        lab.record(1, untrained, measured, THRESHOLDED)
        if self.train_weights:
            trained = yield from lab.train(extracted, TRAINED)
            lab.record(1, extracted, trained, TRAINED)


class EdgePopup(MaskSearch):
    """Edge-popup: a mask of a given density is learned over weights that are never trained.

    Level 1 is the mask found; the variant "trained" is the ticket that its weights become when they are trained after all.
    """

    use = "edge_popup"
    formula = "weights at mask1(w_0), scores at random → learn which k edges to keep (→ train the weights)"
    source = (
        "Ramanujan et al. 2020, What's Hidden in a Randomly Weighted Neural Network?, section 3"
    )
    variants = (TRAINED,)

    density: Density = 0.5
    train_weights: TrainWeights = False

    def search(self, lab: Lab) -> Search[None]:
        yield from _in_cycles(
            lab, [self.density], [None], hard=False, train_weights=self.train_weights
        )


class IterativeEdgePopup(MaskSearch):
    """Iterative edge-popup: cycles of edge-popup at falling density, each with the scores of the one before.

    A level is a cycle with a schedule of its own. What a new cycle takes up again is the rewind policy's choice, which a
    recipe has to name: "learning_rate" restarts the schedule alone.
    """

    use = "iterative_edge_popup"
    formula = "edge-popup at density^(1/K) → at density^(2/K) → … → at density"
    source = "Iwasawa, Strong lottery tickets (slides): iterative edge-popup, soft and hard"
    # The default policy returns scores to their start, so a cycle would learn nothing from the last.
    required = {
        **MaskSearch.required,
        "rewind": "learns masks in cycles, and the policy says what a cycle takes over from the last",
    }
    variants = (TRAINED,)

    density: Density = 0.5
    cycles: Annotated[int, Field(ge=1, description="K. Assumed: no source states it.")] = 5
    falls: Literal["geometric", "linear"] = "geometric"
    """The way in which the density falls from 1 before the first cycle to `density` in the last."""
    densities: list[Density] | None = None
    """The density of each cycle, in place of `density`, `cycles` and `falls`."""
    cycle: Step | None = None
    """Length of a cycle; left out: `train.length` shared out, so that any number of cycles costs the same. The first
    cycles have a step more where it does not divide."""
    pruning: Literal["soft", "hard"] = "soft"
    """hard: edges that a cycle leaves out are removed for good; soft: only scores carry over."""
    train_weights: TrainWeights = False

    @field_validator("densities")
    @classmethod
    def _falling(cls, densities: list[float] | None) -> list[float] | None:
        if densities is not None and (
            not densities or densities != sorted(densities, reverse=True)
        ):
            raise ValueError("must be one density or more, none above the one before")
        return densities

    @model_validator(mode="after")
    def _densities_once(self) -> IterativeEdgePopup:
        # Resolved recipes write every option, so only one that differs from its default counts.
        idle = []
        for name in ("density", "cycles", "falls"):
            if getattr(self, name) != type(self).model_fields[name].default:
                idle.append(name)
        if self.densities is not None and idle:
            raise ValueError(
                f"`densities` says each cycle's density: leave {' and '.join(idle)} out, "
                "or `densities`"
            )
        return self

    def search(self, lab: Lab) -> Search[None]:
        lengths, hard = self.lengths(lab.clock), self.pruning == "hard"
        yield from _in_cycles(
            lab, self._densities(), lengths, hard=hard, train_weights=self.train_weights
        )

    def lengths(self, clock: Clock) -> list[int]:
        cycles = len(self._densities())
        if self.cycle is not None:
            return [clock.steps(self.cycle)] * cycles
        # in sum exactly the training's length, so that a comparison of numbers of cycles is fair
        steps, rest = divmod(clock.total, cycles)
        return [steps + 1] * rest + [steps] * (cycles - rest)

    def _densities(self) -> list[float]:
        if self.densities is not None:
            return self.densities
        shares = [cycle / self.cycles for cycle in range(1, self.cycles + 1)]
        if self.falls == "linear":
            return [1 - (1 - self.density) * share for share in shares]
        # geometric: every cycle removes the same share of what is left, as a round of pruning does
        return [self.density**share for share in shares]


def _in_cycles(
    lab: Lab,
    densities: Sequence[float],
    lengths: Sequence[int | None],
    *,
    hard: bool,
    train_weights: bool,
) -> Search[None]:
    """Learns a mask at one density after another, in as many steps each; records what each cycle found, untrained."""
    ticket = lab.learn_mask(densities[0], lengths[0])
    learned = yield from lab.train(ticket)
    extracted = lab.extract_ticket(ticket, learned)
    # recorded with the figures of the learning itself: they are those of the mask it ended with
    lab.record(1, lab.as_is(extracted), learned)
    for cycle, (density, length) in enumerate(zip(densities[1:], lengths[1:], strict=True), 2):
        # from the scores, not from the mask: with soft pruning an edge may come back
        ticket = lab.continue_mask(ticket, learned, density, hard=hard, length=length)
        learned = yield from lab.train(ticket)
        extracted = lab.extract_ticket(ticket, learned)
        lab.record(cycle, lab.as_is(extracted), learned)
    if train_weights:
        trained = yield from lab.train(extracted, TRAINED)
        lab.record(len(densities), extracted, trained, TRAINED)
