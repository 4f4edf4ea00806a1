"""Pruning: the scope's budgets, checked, and the masks that scores or chance make within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError, UsageError
from lotteryfw.api.kinds import Scope
from lotteryfw.api.layers import Group, LayerInfo
from lotteryfw.api.rng import Stream, stream
from lotteryfw.api.tickets import MaskStats
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.top_k import cut

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Pruner:
    """Makes the masks of one cell.

    Its scope says how many weights are kept, and scores or a random draw say which.
    """

    def __init__(
        self,
        scope: Scope,
        scope_spec: Spec,
        criterion_spec: Spec,
        layers: Sequence[LayerInfo],
        seed: int,
        ties_seed: int,
    ):
        self._scope, self._scope_spec, self._criterion_spec = scope, scope_spec, criterion_spec
        self._layers, self._seed, self._ties_seed = layers, seed, ties_seed
        self.sizes = {layer.name: layer.size for layer in layers}

    def stats(self, mask: Mapping[str, Tensor], requested: float) -> MaskStats:
        """Return how much of the network a mask keeps."""
        kept = {name: int(part.sum()) for name, part in mask.items()}
        return MaskStats(requested, kept, self.sizes)

    def budget_stats(self, budgets: Sequence[Group]) -> MaskStats:
        """Return how much of the network budgets keep whose mask is not known yet.

        A budget of several layers is divided in proportion to their sizes.
        """
        kept = dict(self.sizes)
        for group in budgets:
            keep, size = group.keep, sum(self.sizes[name] for name in group.layers)
            for name in group.layers:
                # The last layer takes the remainder, so the parts add up to the whole budget.
                kept[name] = keep * self.sizes[name] // size
                keep, size = keep - kept[name], size - self.sizes[name]
        grouped = {name for group in budgets for name in group.layers}
        # Layers in no group are not pruned, and count whole.
        unpruned = sum(size for name, size in self.sizes.items() if name not in grouped)
        return MaskStats(sum(group.requested for group in budgets) + unpruned, kept, self.sizes)

    def budgets_after(self, kept: Mapping[str, int], times: int) -> list[Group]:
        """Return the scope's budgets after pruning `times` times in a row.

        Raises ContractError for impossible ones.
        """
        with blame(self._scope_spec, "groups"):
            groups = self._scope.groups(self._layers, kept, times)
        return self._checked("groups", groups, kept)

    def is_exhausted(self, groups: Sequence[Group], kept: Mapping[str, int]) -> bool:
        """Return whether budgets keep all that is left, although less was asked for.

        Rates of 0 ask for all of it: rounds that prune nothing repeat a training on purpose.
        """
        asks_for_less = False
        for group in groups:
            left = sum(kept[name] for name in group.layers)
            if group.keep < left:
                return False
            asks_for_less |= group.requested < left
        return asks_for_less

    def budgets_at(self, density: float | None) -> tuple[Group, ...]:
        """Return the scope's budgets at a density; none where no density is asked for."""
        if density is None:
            return ()
        with blame(self._scope_spec, "at"):
            groups = self._scope.at(self._layers, density)
        return tuple(self._checked("at", groups, self.sizes))

    def budgets_down_to(self, kept: Mapping[str, int], density: float) -> list[Group]:
        """Return the scope's budgets at a density, for a network of which so much is left.

        Raises UsageError where more is asked for than is left.
        """
        groups = []
        for group in self.budgets_at(density):
            alive = sum(kept[name] for name in group.layers)
            # Less than a whole weight above what is left comes from rounding alone.
            if group.requested >= alive + 1:
                size = sum(self.sizes[name] for name in group.layers)
                raise UsageError(
                    f"density {density:g} keeps {group.keep:,} of the {size:,} weights of "
                    f"{', '.join(group.layers)}, of which only {alive:,} are left: pruned weights "
                    f"do not come back, so the density can be {alive / size:.4g} at most"
                )
            # Rounding up may ask for one weight more than there is.
            groups.append(replace(group, keep=min(group.keep, alive)))
        return groups

    def by_score(
        self,
        mask: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
        groups: Sequence[Group],
        level: int,
        scored_by: Spec | None = None,
    ) -> tuple[dict[str, Tensor], MaskStats]:
        """Keep the weights of largest score among those in `mask`, within each group's budget.

        `scored_by` is the criterion that messages name; None: the recipe's.
        """

        def ties(layers: tuple[str, ...]) -> Generator:
            # With the group's layers, as equal groups must not keep equal places.
            return stream(self._ties_seed, Stream.TIES, level, *layers)

        try:
            pruned = cut(scores, mask, groups, ties)
        except ContractError as error:
            raise ContractError(
                f"{describe(scored_by or self._criterion_spec)}: {error} at level {level}"
            ) from None
        grouped = {name for group in groups for name in group.layers}
        unpruned = sum(int(part.sum()) for name, part in pruned.items() if name not in grouped)
        return pruned, self.stats(pruned, sum(group.requested for group in groups) + unpruned)

    def at_random(
        self,
        mask: Mapping[str, Tensor],
        groups: Sequence[Group],
        level: int,
        drawn_for: tuple[Stream, ...] = (),
    ) -> tuple[dict[str, Tensor], MaskStats]:
        """Keep a uniformly random choice of the weights in `mask`, within each group's budget.

        `drawn_for` are further labels of the stream: other ones, another choice.
        """
        import torch

        scores = {}
        for layer in self._layers:
            rng = stream(self._seed, Stream.RANDOM_MASK, *drawn_for, level, layer.name)
            scores[layer.name] = torch.rand(layer.shape, generator=rng)
        return self.by_score(mask, scores, groups, level)

    def _checked(self, method: str, groups: object, kept: Mapping[str, int]) -> list[Group]:
        who = f"{describe(self._scope_spec)}: {method}()"
        if not isinstance(groups, list | tuple):
            raise ContractError(
                f"{who} returned {type(groups).__name__}; it must return a list of Group"
            )
        # A layer in two groups would be cut twice, with two budgets.
        seen: set[str] = set()
        for group in groups:
            if not isinstance(group, Group):
                raise ContractError(f"{who} gave a {type(group).__name__}, not a Group")
            names = set(group.layers)
            unknown, repeated = names - kept.keys(), names & seen
            alive = sum(kept.get(name, 0) for name in names)
            if unknown:
                raise ContractError(
                    f"{who} names no layer of the network: {', '.join(sorted(unknown))}"
                )
            if repeated:
                raise ContractError(f"{who} has {', '.join(sorted(repeated))} in two groups")
            if not 0 <= group.keep <= alive:
                raise ContractError(
                    f"{who} keeps {group.keep} of {alive} living weights in "
                    f"{', '.join(sorted(names))}"
                )
            seen |= names
        return list(groups)
