"""The rules of learned masks that kernels have built in, over flat arrays and without autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.api.kinds import Parametrization
from lotteryfw.engine.kernels.sparse.flat_parameters import FlatParameter
from lotteryfw.engine.kernels.sparse.mlp_products import MlpProducts
from lotteryfw.engine.learned_mask import stream_of_evaluation, stream_of_step
from lotteryfw.search.jobs import Train
from lotteryfw.search.top_k import IncrementalTopK

Masks = Mapping[str, Tensor]
"""By layer, [entries] bool, in the layout of the layer's `parameter`."""


class MaskRule(Protocol):
    """Says which edges take part, with which weights, and what gradient the scores get.

    It is made for one training, over layers whose scores move.
    """

    def masks_of_step(self, step: int) -> Masks:
        """Return the masks of a training step."""
        ...

    def masks_of_evaluation(self) -> Iterator[Masks]:
        """Yield the masks that an evaluation averages over."""
        ...

    def selected(self) -> Masks:
        """Return the masks that the scores stand for now."""
        ...

    def load(self, masks: Masks) -> None:
        """Let the products compute with the weights under these masks."""
        ...

    def pass_gradient_to_scores(self) -> None:
        """Turn the gradient of the weights under the masks into that of the scores."""
        ...


class ScoredLayer:
    """The edges of one layer. All arrays are [entries], in the layout of `parameter`.

    There may be more entries than edges; those are not allowed, and their weights are 0.
    """

    def __init__(
        self,
        job: Train,
        name: str,
        parameter: FlatParameter,
        flat_scores: Tensor,
        products: MlpProducts,
    ):
        self.parameter = parameter
        self.allowed = parameter.compress(job.mask[name])
        self.scores = flat_scores[parameter.span]
        self.scores.copy_(parameter.compress(job.scores[name]))
        self.weights = parameter.compress(job.values[name])
        """The weights, which stay as they are."""
        self.values = products.values[parameter.span]
        """What the products compute with."""
        self.gradient = products.gradient[parameter.span]
        """The gradient of `values`, and in its place that of the scores."""

    @property
    def size(self) -> int:
        """The number of edges."""
        return prod(self.parameter.shape)

    def tie_order(self) -> Tensor:
        """Return int64: the places of the edges in the layer's own order."""
        places = torch.arange(self.size).view(*self.parameter.shape)
        return self.parameter.compress(places)


class TopKRule:
    """Keeps in each budget the edges of largest score, or of largest magnitude of it."""

    def __init__(
        self,
        job: Train,
        parametrization: Parametrization,
        layers: Mapping[str, ScoredLayer],
        by_magnitude: bool,
    ):
        self._layers = layers
        self._by_magnitude = by_magnitude
        self._loops = _score_loops()
        self._selections = []
        for names, keep in job.budgets:
            budget = {name: layers[name] for name in names}
            self._selections.append(_Selection(budget, keep, by_magnitude))

    def masks_of_step(self, step: int) -> Masks:
        return self.selected()

    def masks_of_evaluation(self) -> Iterator[Masks]:
        yield self.selected()

    def selected(self) -> Masks:
        # A layer in no budget keeps all that it may.
        masks = {name: layer.allowed for name, layer in self._layers.items()}
        for selection in self._selections:
            masks |= selection()
        return masks

    def load(self, masks: Masks) -> None:
        for name, layer in self._layers.items():
            self._loops.keep_weights(
                layer.weights.numpy(), masks[name].numpy(), 1.0, layer.values.numpy()
            )

    def pass_gradient_to_scores(self) -> None:
        for layer in self._layers.values():
            self._loops.ranked_score_gradient(
                layer.gradient.numpy(),
                layer.weights.numpy(),
                layer.scores.numpy(),
                self._by_magnitude,
            )


class _Selection:
    """Keeps the edges of largest rank among those of some layers."""

    def __init__(self, layers: Mapping[str, ScoredLayer], keep: int, by_magnitude: bool):
        self._layers = layers
        self._by_magnitude = by_magnitude
        self._loops = _score_loops()
        orders, allowed, before = [], 0, 0
        for layer in layers.values():
            orders.append(layer.tie_order() + before)
            before += layer.size
            allowed += int(layer.allowed.sum())
        order = torch.cat(orders)
        # Fewer edges may be left than the scope's budget would keep.
        self._top = IncrementalTopK(min(keep, allowed), order, self._find_bracket)
        self._ranks = torch.zeros(len(order))
        self._sizes = [len(layer.scores) for layer in layers.values()]
        self._parts = [part.numpy() for part in torch.split(self._ranks, self._sizes)]
        self._inside = np.zeros(len(order), np.intp)

    def __call__(self) -> dict[str, Tensor]:
        """Return the masks by layer, [entries] bool."""
        for layer, ranks in zip(self._layers.values(), self._parts, strict=True):
            self._loops.rank(layer.scores.numpy(), layer.allowed.numpy(), self._by_magnitude, ranks)
        kept = torch.split(self._top(self._ranks), self._sizes)
        return dict(zip(self._layers, kept, strict=True))

    def _find_bracket(
        self, ranks: NDArray[np.float32], low: np.float32, high: np.float32
    ) -> tuple[NDArray[np.bool_], NDArray[np.intp], int]:
        above = np.empty(len(ranks), np.bool_)
        count, found = self._loops.bracket(ranks, low, high, above, self._inside)
        return above, self._inside[:found], count


class BernoulliRule:
    """Draws every edge with the probability sigmoid(score), anew in each step.

    With `rescale`, a layer's weights are multiplied by edges / max(drawn, ½).
    """

    def __init__(
        self,
        job: Train,
        parametrization: Parametrization,
        layers: Mapping[str, ScoredLayer],
        rescale: bool,
    ):
        self._job = job
        self._parametrization = parametrization
        # All layers' numbers of a draw, one layer after the other, as its stream has them.
        sizes = [layer.size for layer in layers.values()]
        self._noise = torch.empty(sum(sizes))
        noises = torch.split(self._noise, sizes)
        self._layers: dict[str, _DrawnLayer] = {}
        for (name, layer), noise in zip(layers.items(), noises, strict=True):
            self._layers[name] = _DrawnLayer(layer, noise, rescale)

    def masks_of_step(self, step: int) -> Masks:
        return self._drawn(stream_of_step(self._job, step))

    def masks_of_evaluation(self) -> Iterator[Masks]:
        draws = self._parametrization.draws()
        for draw in range(draws):
            yield self._drawn(stream_of_evaluation(self._job, draw))
        if not draws:
            yield self.selected()

    def _drawn(self, rng: torch.Generator) -> Masks:
        # It needs numba, which takes a second to import.
        from lotteryfw.engine.kernels.sparse.numba_draws import fill_uniform

        fill_uniform(rng, self._noise)
        return {name: layer.draw() for name, layer in self._layers.items()}

    def selected(self) -> Masks:
        return {name: layer.selected() for name, layer in self._layers.items()}

    def load(self, masks: Masks) -> None:
        for name, layer in self._layers.items():
            layer.load(masks[name])

    def pass_gradient_to_scores(self) -> None:
        for layer in self._layers.values():
            layer.pass_gradient_to_scores()


class _DrawnLayer:
    """The edges of one layer of `BernoulliRule`."""

    def __init__(self, layer: ScoredLayer, noise: Tensor, rescale: bool):
        """`noise`: where the numbers of a draw are put, [edges] in the layer's own order."""
        self._layer = layer
        self._rescale = rescale
        self._loops = _score_loops()
        self._probabilities = torch.empty_like(layer.scores)
        """Those of the last draw; scores move after the gradient has been passed on."""
        self._noise = noise.view(*layer.parameter.shape)
        self._flat_noise = torch.zeros_like(layer.scores)
        self._kept = 0
        self._factor = 1.0

    def draw(self) -> Tensor:
        """Return the mask for the numbers that were put into `noise`."""
        self._layer.parameter.write(self._noise, self._flat_noise)
        torch.sigmoid(self._layer.scores, out=self._probabilities)
        mask = torch.empty_like(self._layer.allowed)
        self._loops.draw(
            self._flat_noise.numpy(),
            self._probabilities.numpy(),
            self._layer.allowed.numpy(),
            mask.numpy(),
        )
        return mask

    def selected(self) -> Tensor:
        return (self._layer.scores > 0) & self._layer.allowed

    def load(self, mask: Tensor) -> None:
        layer = self._layer
        self._kept = int(np.count_nonzero(mask.numpy()))
        if self._rescale:
            # In float32, as autograd divides.
            self._factor = float(np.float32(layer.size) / np.float32(max(self._kept, 0.5)))
        self._loops.keep_weights(
            layer.weights.numpy(), mask.numpy(), self._factor, layer.values.numpy()
        )

    def pass_gradient_to_scores(self) -> None:
        layer = self._layer
        shift = 0.0
        if self._rescale and self._kept:
            # One more edge would lower the factor, for every edge that takes part.
            shift = -float(torch.dot(layer.gradient, layer.values)) / self._kept
        self._loops.drawn_score_gradient(
            layer.gradient.numpy(),
            layer.weights.numpy(),
            self._probabilities.numpy(),
            self._factor,
            shift,
        )


MakeRule = Callable[[Train, Parametrization, Mapping[str, ScoredLayer]], MaskRule]

MASK_RULES: Mapping[str, MakeRule] = {
    "top_k": partial(TopKRule, by_magnitude=False),
    "top_k_magnitude": partial(TopKRule, by_magnitude=True),
    "bernoulli": partial(BernoulliRule, rescale=False),
    "bernoulli_dynamic": partial(BernoulliRule, rescale=True),
}
"""By the closed form of a parametrization (`Parametrization.closed_form`), what makes its rule."""


def _score_loops() -> ModuleType:
    # They need numba, which takes a second to import.
    from lotteryfw.engine.kernels.sparse import numba_scores

    return numba_scores
