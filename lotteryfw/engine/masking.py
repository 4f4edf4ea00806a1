"""Networks whose masks are learned: the weights they compute with, in a training step and in an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import SCORES, Group, LayerInfo, MaskedLayer, MaskedNetwork
from lotteryfw.api.rng import stream
from lotteryfw.engine.ahead import Ahead
from lotteryfw.engine.feed import Feed
from lotteryfw.engine.measure import measure, totals
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Masking:
    """The masks of a job over `values` (every parameter and buffer, and scores), which it reads as they change."""

    def __init__(
        self, job: Train, shop: Workshop, module: torch.nn.Module, values: Mapping[str, Tensor]
    ):
        assert job.parametrization is not None
        assert job.initialiser is not None
        self._job = job
        self._values = values
        self.how: Parametrization = shop.component(job.parametrization)
        names: list[str] = shop.component(job.model).prunable(module)
        edges = {}
        for name in names:
            layer = LayerInfo(name, tuple(values[name].shape), is_output=name == names[-1])
            edges[name] = MaskedLayer(
                layer, values[name], values[SCORES + name], job.mask[name].to(shop.device)
            )
        budgets = tuple(Group(layers, keep, keep) for layers, keep in job.budgets)
        self.net = MaskedNetwork(edges, budgets, shop.component(job.initialiser).weight)
        self._ahead: dict[str, Ahead] | None = None
        if shop.device != "cpu" and type(self.how).noise is not Parametrization.noise:
            self._ahead = {
                "": Ahead(lambda step: self._noise(step), shop.device),
                "evaluation": Ahead(lambda draw: self._noise("evaluation", draw), shop.device),
            }

    def sampled(self, *when: str | int) -> dict[str, Tensor]:
        """The masks of a step, or, with "evaluation" before its number, of a draw of an evaluation."""
        import torch

        with torch.no_grad():
            if self._ahead is not None:
                *kind, number = when
                return self.how.masks_from(
                    self.net, self._ahead["/".join(map(str, kind))](int(number))
                )
            return self.how.sampled(self.net, self._stream(*when))

    def _stream(self, *when: str | int) -> torch.Generator:
        return stream(self._job.mask_seed or 0, "masks", *when)

    def _noise(self, *when: str | int) -> dict[str, Tensor]:
        layers = [edges.info for edges in self.net.edges.values()]
        return self.how.noise(layers, self._stream(*when))

    def selected(self) -> dict[str, Tensor]:
        """The masks that the scores stand for now."""
        import torch

        with torch.no_grad():
            return self.how.masks(self.net)

    def is_finite(self) -> bool:
        """Whether every score is a number still."""
        import torch

        return bool(
            torch.stack(
                [torch.isfinite(edges.scores).all() for edges in self.net.edges.values()]
            ).all()
        )

    def weights(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every parameter and buffer as the network computes with them under these masks."""
        plain = {name: value for name, value in self._values.items() if "/" not in name}
        return plain | {
            name: self.how.weight(edges, masks[name]) for name, edges in self.net.edges.items()
        }

    def evaluated(self) -> Iterator[dict[str, Tensor]]:
        """The weights that an evaluation averages over."""
        import torch

        with torch.no_grad():
            draws = self.how.draws()
            for draw in range(draws):
                yield self.weights(self.sampled("evaluation", draw))
            if not draws:
                yield self.weights(self.selected())


def measure_job(
    job: Train,
    shop: Workshop,
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    feed: Feed,
    part: str,
    masking: Masking | None = None,
) -> tuple[float, float]:
    """Mean loss (nats) and accuracy in [0, 1] of a job's network at `values` over a part of the data; of learned masks
    the mean over the draws that the parametrization asks for. `masking`: the masks over these values, if there is one
    already."""
    import torch

    objective = shop.component(job.objective)
    if job.parametrization is None:
        return measure(module, values, feed, part, objective)
    masking = masking or Masking(job, shop, module, values)
    sums = [totals(module, weights, feed, part, objective) for weights in masking.evaluated()]
    examples = len(feed.raw(part)[1])
    losses, accuracies = [], []
    for loss, correct in torch.stack(sums).tolist():  # the only wait
        losses.append(loss / examples)
        accuracies.append(correct / examples)
    return sum(losses) / len(sums), sum(accuracies) / len(sums)
