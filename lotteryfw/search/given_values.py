"""Derivations of networks that no pruning makes: a search's own, and those between trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.digests import tensors_digest
from lotteryfw.api.errors import UsageError
from lotteryfw.api.tickets import Derivation, MaskStats, Restart, Ticket, TicketState, Trained
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.derivations import kept_by_budgets
from lotteryfw.search.rewinding import zeros_where_masked
from lotteryfw.search.round_layers import Tensors, merge

if TYPE_CHECKING:
    from torch import Tensor


class GivenTicket(Derivation):
    """A ticket of somebody's own: another one, with other masks, values or scores.

    `masks`, `frozen` and `scores` are by layer, `values` by the names of parameters and buffers;
    what they lack is as in `base`. Newly masked weights are frozen at 0 where `frozen` has no
    values for them; weights that `base` masks, too, stay at its values.
    """

    def __init__(
        self,
        base: Ticket,
        values: Tensors | None = None,
        masks: Tensors | None = None,
        scores: Tensors | None = None,
        frozen: Tensors | None = None,
    ):
        # The caller may go on changing its tensors, and the digest is that of their content now.
        self._values = _copied(values)
        self._masks = _copied(masks)
        self._scores = _copied(scores)
        self._frozen = _copied(frozen)
        self.parent: Ticket = base
        contents = []
        for tensors in (self._values, self._masks, self._scores, self._frozen):
            contents.append(tensors_digest(tensors) if tensors else "")
        self.digest = digest_of("given", base.origin, *contents)

    def materialise(self) -> TicketState:
        base = self.parent.source.state()
        masks = {**base.mask, **self._masks} if self._masks else base.mask
        values = dict(base.values)
        for name, value in self._values.items():
            values[name] = value.to(values[name].dtype)
        # Before the mask: controls with other masks start from these.
        whole = {name: values[name] for name in masks}
        for name, mask in masks.items():
            newly_masked = merge(mask, values[name], self._frozen.get(name))
            # A kernel must never see a masked weight move, whatever the caller interpolated.
            is_still_masked = ~mask & ~base.mask[name]
            values[name] = merge(~is_still_masked, newly_masked, base.values[name])
        scores = base.scores if not self._scores else {**(base.scores or {}), **self._scores}
        return TicketState(
            masks, values, self._stats(masks), scores, base.budgets, self._restart(base, whole)
        )

    def _stats(self, masks: Tensors) -> MaskStats:
        # Values alone remove nothing, so the counts stay those of the base.
        cut = self.parent.cut
        if not self._masks:
            return cut
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        return MaskStats(float(sum(kept.values())), kept, cut.sizes)

    def _restart(self, base: TicketState, whole: Tensors) -> Restart | None:
        """Return the rules for other masks: what somebody gave, and what `base` would have."""
        if not self._masks and not self._values:
            return base.restart
        earlier, changed = base.restart, self._values

        def rewound() -> Tensors:
            weights = dict(whole)
            if earlier is not None:
                for name, weight in earlier.rewound().items():
                    if name not in changed:
                        weights[name] = weight
            return weights

        return zeros_where_masked(rewound)

    def kept_by_budgets(self) -> Mapping[str, int]:
        kept = dict(kept_by_budgets(self.parent))
        for name, mask in self._masks.items():
            kept[name] = int(mask.sum())
        return kept


def _copied(tensors: Tensors | None) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in (tensors or {}).items()}


class Interpolated(Derivation):
    """The network on the straight line between the ends of two trainings.

    `alpha` is 0 at the first and 1 at the second. What either of them keeps is kept.
    """

    def __init__(self, context: SearchContext, first: Trained, second: Trained, alpha: float):
        self._context = context
        self._first = first
        self._second = second
        self._alpha = alpha
        jobs = (context.training_digest(first), context.training_digest(second))
        self.digest = digest_of("between", *jobs, float(alpha))

    def materialise(self) -> TicketState:
        first, second = self._first.weights(), self._second.weights()
        # Between two sets of scores there is no mask that means anything.
        if self._first.scores() or self._second.scores():
            raise UsageError(
                "lab.interpolate: a training that learned a mask left its weights as they were; "
                "interpolate between trainings of the tickets that the masks make"
            )
        if first.keys() != second.keys():
            raise UsageError("lab.interpolate: the two networks have other parameters")
        values = {}
        for name, value in first.items():
            values[name] = between(value, second[name], self._alpha)

        masks: dict[str, Tensor] = {}
        others = _mask_of(self._second)
        for name, mask in _mask_of(self._first).items():
            masks[name] = mask | others[name]
        kept = float(sum(int(mask.sum()) for mask in masks.values()))
        return TicketState(masks, values, self._context.pruner.stats(masks, kept))

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self._first.ticket)


def _mask_of(trained: Trained) -> Mapping[str, Tensor]:
    """Return the mask at the end of a training, which a mask update may have changed."""
    return trained.outcome.tensors().masks or trained.outcome.mask()


def between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Return (1 - alpha) first + alpha second; at the ends, and between equals, exactly these.

    Counts, such as the number of batches that batch normalisation saw, are those of the nearer end.
    """
    import torch

    # `lerp` rounds, and the ends must be the trained networks to the bit.
    if alpha in (0, 1) or not first.is_floating_point():
        return first if alpha < 0.5 else second
    return torch.lerp(first, second, alpha)
