"""Scopes: the groups of layers that share one budget, and how much each keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from lotteryfw import Group, LayerInfo, Scope, UsageError, budget

Rate = Annotated[float, Field(ge=0, lt=1)]


class Layerwise(Scope):
    """Every layer loses its own share of what it still has."""

    use = "layerwise"
    formula = "keep_l = kept_l - round(rate_l kept_l)"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2 and figure 2"
    default = True

    rate: Rate = 0.2
    """Share of a layer's living weights that a cut removes."""
    output_rate: Rate | None = None
    """The rate of the output layer; left out: `rate`."""
    rates: dict[str, Rate] = {}
    """Rates of single layers, by name or pattern ("fc1", "conv*").

    The first match wins, also over `output_rate`. A layer of rate 0 stays whole, also where a mask
    is learned at a density.
    """

    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        _check_patterns(self.use, self.rates, layers)
        rates = {layer.name: self._rate(layer) for layer in layers}
        return [_group((name,), kept[name], rate, times) for name, rate in rates.items()]

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        _check_patterns(self.use, self.rates, layers)
        # the size of a rate plays no part here, as the density says how much is kept; 0 exempts
        return [_share((layer.name,), layer.size, density) for layer in layers if self._rate(layer)]

    def _rate(self, layer: LayerInfo) -> float:
        for pattern, rate in self.rates.items():
            if _matches(layer, pattern):
                return rate
        # section 2 of the paper: the output layer is pruned at half the rate of the others
        if layer.is_output and self.output_rate is not None:
            return self.output_rate
        return self.rate


class Global(Scope):
    """One budget for the whole network: layers compete."""

    use = "global"
    formula = "keep = kept - round(rate kept), over all layers together"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 4"

    rate: Rate = 0.2
    """Share of the network's living weights that a cut removes."""
    exclude: list[str] = []
    """Layers that stay as they are, by name or pattern ("fc*"); the budget excludes them."""

    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        names = self._included(layers)
        # without a group nothing is cut, which is right where everything is excluded
        return [_group(names, sum(kept[name] for name in names), self.rate, times)] if names else []

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        names = self._included(layers)
        size = sum(layer.size for layer in layers if layer.name in names)
        return [_share(names, size, density)] if names else []

    def _included(self, layers: Sequence[LayerInfo]) -> tuple[str, ...]:
        _check_patterns(self.use, self.exclude, layers)
        included: list[str] = []
        for layer in layers:
            if not any(_matches(layer, pattern) for pattern in self.exclude):
                included.append(layer.name)
        return tuple(included)


class Erk(Scope):
    """One budget for the whole network, shared out by Erdős–Rényi-Kernel densities.

    A layer that is due more than it has alive keeps all of that, and the others share the rest.
    Whole weights are made by largest remainder, so the counts add up to the budget exactly.
    """

    use = "erk"
    formula = "density_l proportional to (n_in + n_out + k_h + k_w) / (n_in n_out k_h k_w)"
    source = "Evci et al. 2020, Rigging the Lottery, section 3"

    rate: Rate = 0.2
    """Share of the network's living weights that a cut removes."""

    def groups(
        self, layers: Sequence[LayerInfo], kept: Mapping[str, int], times: int
    ) -> list[Group]:
        whole = _group(tuple(kept), sum(kept.values()), self.rate, times)
        return self._shared_out(whole, layers, kept)

    def at(self, layers: Sequence[LayerInfo], density: float) -> list[Group]:
        sizes = {layer.name: layer.size for layer in layers}
        whole = _share(tuple(sizes), sum(sizes.values()), density)
        return self._shared_out(whole, layers, sizes)

    def _shared_out(
        self, whole: Group, layers: Sequence[LayerInfo], kept: Mapping[str, int]
    ) -> list[Group]:
        alive = [kept[layer.name] for layer in layers]
        # density is proportional to sum(shape) / prod(shape), so the count is to sum(shape)
        weights = [sum(layer.shape) for layer in layers]
        # rounded shares of their own would miss the network's budget by some weights
        counts = _whole(_shares(Fraction(whole.keep), weights, alive), whole.keep)
        requested = _shares(Fraction(whole.requested), weights, alive)
        groups: list[Group] = []
        for layer, count, share in zip(layers, counts, requested, strict=True):
            groups.append(Group((layer.name,), count, float(share)))
        return groups


def _group(names: tuple[str, ...], kept: int, rate: float, times: int) -> Group:
    # `budget` rounds after each of the cuts, as iterating does; `requested` is not rounded at all
    return Group(names, keep=budget(kept, rate, times), requested=kept * (1 - rate) ** times)


def _share(names: tuple[str, ...], size: int, density: float) -> Group:
    return Group(names, keep=round(density * size), requested=density * size)


def _matches(layer: LayerInfo, pattern: str) -> bool:
    """Return True for the parameter's path ("fc1.weight") and for its module's ("fc1")."""
    module = layer.name.rpartition(".")[0]
    # fnmatchcase: fnmatch would ignore the case on some systems, and a recipe means one thing
    return fnmatchcase(layer.name, pattern) or fnmatchcase(module, pattern)


def _check_patterns(use: str, patterns: Iterable[str], layers: Sequence[LayerInfo]) -> None:
    """Raise UsageError for a pattern that names no layer: it would do nothing, in silence."""
    for pattern in patterns:
        if not any(_matches(layer, pattern) for layer in layers):
            names = ", ".join(layer.name for layer in layers)
            raise UsageError(
                f"scope '{use}': no prunable layer is called '{pattern}'; this model has {names}"
            )


def _shares(total: Fraction, weights: Sequence[int], limits: Sequence[int]) -> list[Fraction]:
    """Return `total` shared out in proportion to `weights`, with no share above its limit.

    The rest of a share that reaches its limit goes to the others. `total` is at most the sum of
    the limits.
    """
    # fractions, because the shares have to add up exactly
    shares = [Fraction(limit) for limit in limits]
    sharing = set(range(len(weights)))
    rest = total
    while sharing:
        unit = rest / sum(weights[i] for i in sharing)
        full = {i for i in sharing if unit * weights[i] > limits[i]}
        if not full:
            for i in sharing:
                shares[i] = unit * weights[i]
            return shares
        # What the full ones leave over raises the unit, so others may become full in turn. At
        # least one drops out in each round, so there are no more rounds than layers.
        sharing -= full
        rest -= sum(limits[i] for i in full)
    return shares


def _whole(shares: Sequence[Fraction], total: int) -> list[int]:
    """Return whole numbers next to `shares` that sum to `total` as these do.

    The largest remainders are rounded up.
    """
    counts = [int(share) for share in shares]
    # the largest first, and of equal ones the earlier layer, as sorting is stable
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
