"""Cutting: the scope's budgets, checked, and the masks that scores or chance make within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lotteryfw.asking import Asking
from lotteryfw.errors import ContractError
from lotteryfw.rng import stream
from lotteryfw.select import cut
from lotteryfw.views import CutReport, Group, Layer, Ticket

if TYPE_CHECKING:
    from torch import Tensor


class Cuts:
    """What one cell's scope and streams make of scores."""

    def __init__(self, ask: Asking, layers: Sequence[Layer], seed: int):
        self._ask, self._layers, self._seed = ask, layers, seed
        self._sizes = {layer.name: layer.size for layer in layers}

    def kept(self, ticket: Ticket) -> Mapping[str, int]:
        """How many weights of each layer a ticket has."""
        return self.report(ticket).kept

    def report(self, ticket: Ticket) -> CutReport:
        """How much of the network a ticket keeps: all of it before the first cut.

        Of one whose mask is yet to be learned, what its budgets ask for. A budget of several layers is shared out by
        their sizes, as only the mask will tell which of their edges it is.
        """
        if ticket.cut:
            return ticket.cut
        kept = dict(self._sizes)
        for group in ticket.budgets:
            keep, left = group.keep, sum(self._sizes[name] for name in group.leaves)
            for name in group.leaves:
                kept[name] = keep * self._sizes[name] // left
                keep, left = keep - kept[name], left - self._sizes[name]
        shared = {name for group in ticket.budgets for name in group.leaves}
        left_alone = sum(size for name, size in self._sizes.items() if name not in shared)
        return CutReport(sum(group.requested for group in ticket.budgets) + left_alone, kept, self._sizes)

    def found(self, mask: Mapping[str, Tensor], requested: float) -> CutReport:
        """The report of a mask."""
        return CutReport(requested, {name: int(part.sum()) for name, part in mask.items()}, self._sizes)

    def groups(self, kept: Mapping[str, int], times: int) -> list[Group]:
        """The scope's budgets after `times` cuts in a row. Raises ContractError for what are none."""
        return self._checked("groups", self._ask.component("scope", "groups", self._layers, kept, times), kept)

    def budgets(self, density: float | None) -> tuple[Group, ...]:
        """The scope's budgets at a density; none where there is none to share out."""
        if density is None:
            return ()
        groups = self._ask.component("scope", "at", self._layers, density)
        return tuple(self._checked("at", groups, self._sizes))

    def by_score(
        self, ticket: Ticket, scores: Mapping[str, Tensor], groups: Sequence[Group], level: int
    ) -> tuple[dict[str, Tensor], CutReport]:
        """The masks of the best of a ticket's weights in each group."""
        try:
            mask = cut(scores, ticket.mask, groups, lambda: stream(self._seed, "ties", level))
        except ContractError as error:
            raise ContractError(f"{self._ask.who('criterion')}: {error} at level {level}") from None
        grouped = {name for group in groups for name in group.leaves}
        left_alone = sum(int(part.sum()) for name, part in mask.items() if name not in grouped)
        return mask, self.found(mask, sum(group.requested for group in groups) + left_alone)

    def at_random(self, ticket: Ticket, groups: Sequence[Group], level: int) -> tuple[dict[str, Tensor], CutReport]:
        """Uniformly random masks within the groups' budgets."""
        import torch

        scores = {
            layer.name: torch.rand(layer.shape, generator=stream(self._seed, "random_mask", level, layer.name))
            for layer in self._layers
        }
        return self.by_score(ticket, scores, groups, level)

    def _checked(self, method: str, groups: list[Group], kept: Mapping[str, int]) -> list[Group]:
        who, seen = self._ask.who("scope"), set[str]()
        for group in groups:
            if not isinstance(group, Group):
                raise ContractError(f"{who}: {method}() gave a {type(group).__name__}, not a Group")
            here = set(group.leaves)
            strange, twice = here - kept.keys(), here & seen
            alive = sum(kept.get(name, 0) for name in here)
            if strange or twice or not 0 <= group.keep <= alive:
                what = (
                    f"names no layer of the network: {', '.join(sorted(strange))}" if strange
                    else f"has {', '.join(sorted(twice))} in two groups" if twice
                    else f"keeps {group.keep} of {alive} living weights in {', '.join(sorted(here))}"
                )  # fmt: skip
                raise ContractError(f"{who}: {method}() {what}")
            seen |= here
        return groups
