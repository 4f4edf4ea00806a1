"""Networks that read tokens."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import TextModelFamily

if TYPE_CHECKING:
    from torch import nn

Units = Annotated[int, Field(ge=1)]


class EmbeddingMlp(TextModelFamily):
    """An embedding of each token, and a fully connected ReLU network over all of them in order.

    The embeddings are trained and not pruned.
    """

    use = "embedding_mlp"
    formula = "tokens - embedding - flatten - hidden… - classes"
    source = "Bengio et al. 2003, A Neural Probabilistic Language Model, section 2"

    width: Units = 16
    """Numbers in the embedding of a token."""
    hidden: list[Units] = [64]
    """Units of each hidden layer; empty: a linear classifier of the embeddings."""

    def build_text(self, shape: tuple[int, ...], vocabulary: int, classes: int) -> nn.Module:
        from torch import nn

        # torch's own initialisation: the recipe's initialiser draws Linear and Conv layers
        layers: list[nn.Module] = [nn.Embedding(vocabulary, self.width), nn.Flatten()]
        size = prod(shape) * self.width
        for units in self.hidden:
            layers += [nn.Linear(size, units), nn.ReLU()]
            size = units
        return nn.Sequential(*layers, nn.Linear(size, classes))
