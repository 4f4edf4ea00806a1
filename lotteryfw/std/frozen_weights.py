"""The parametrization that learns masks over frozen weights, and trains what is not frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from lotteryfw import (
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    UpdateFactors,
    UsageError,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FrozenWeights(Parametrization):
    """Learns the masks of `inner` over weights that stay as they are, and trains all others.

    Such as a generator that is found by its mask, against a discriminator that is trained.
    """

    use = "frozen_weights"
    formula = "masks of inner; learning rate 0 for frozen parameters, the optimizer's for others"
    source = (
        "Ramanujan et al. 2020, What's Hidden in a Randomly Weighted Neural Network?, for a part of "
        "a network"
    )
    trains_weights = True

    inner: Parametrization
    """Learns the masks. It must not train weights itself."""
    frozen: Annotated[list[str], Field(min_length=1)]
    """Parameters that stay as they are, by name or pattern ("generator.*").

    All weights whose masks are learned belong to them."""
    score_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Multiplies the learning rate of scores."""

    @field_validator("inner")
    @classmethod
    def _trains_no_weights(cls, inner: Parametrization) -> Parametrization:
        if inner.trains_weights:
            raise ValueError(f"'{inner.use}' trains the weights itself, which are frozen here")
        return inner

    # of the instance, not of the class: it depends on the option
    @property
    def needs_density(self) -> bool | None:  # type: ignore[override]
        """The need of the inner parametrization."""
        return self.inner.needs_density

    def score_shape(self, layer: LayerInfo) -> tuple[int, ...]:
        return self.inner.score_shape(layer)

    def initial(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return self.inner.initial(layer, rng)

    def factors(self, name: str, is_score: bool) -> UpdateFactors:
        # penalties and factors of the inner one are about scores alone, as it trains no weights
        if is_score:
            return UpdateFactors(learning_rate=self.score_rate)
        if self._is_frozen(name):
            return UpdateFactors(learning_rate=0.0, weight_decay=0.0)
        return UpdateFactors()

    def penalty(self, net: MaskedNetwork) -> Tensor | None:
        return self.inner.penalty(net)

    def masks(self, net: MaskedNetwork) -> dict[str, Tensor]:
        self._check_layers(net)
        return self.inner.masks(net)

    def sampled(self, net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
        self._check_layers(net)
        return self.inner.sampled(net, rng)

    def noise(self, layers: Sequence[LayerInfo], rng: torch.Generator) -> dict[str, Tensor] | None:
        return self.inner.noise(layers, rng)

    def masks_from(self, net: MaskedNetwork, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.masks_from(net, noise)

    def weight(self, edges: MaskedLayer, mask: Tensor) -> Tensor:
        return self.inner.weight(edges, mask)

    def expected(self, edges: MaskedLayer, mask: Tensor) -> float:
        return self.inner.expected(edges, mask)

    def draws(self) -> int:
        return self.inner.draws()

    def refresh(self) -> int:
        return self.inner.refresh()

    def after_step(
        self, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
    ) -> None:
        self.inner.after_step(step, net, masks, rng)

    def _is_frozen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.frozen)

    def _check_layers(self, net: MaskedNetwork) -> None:
        # A misspelt pattern would train the weights that were meant to stay as they are.
        trained = [name for name in net.edges if not self._is_frozen(name)]
        if trained:
            raise UsageError(
                f"parametrization '{self.use}': the mask of {trained[0]} is learned, so it must be "
                f"frozen, and no pattern of {', '.join(self.frozen)} names it"
            )
