"""Made-up data, for trying things out in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import Dataset, DatasetInfo, DataSource, Subset, stream
from lotteryfw.std.draws import OwnStream

if TYPE_CHECKING:
    from torch import Tensor


class Synthetic(DataSource):
    """One random prototype for each class, and noise around it; the same on every machine.

    Validation and test part hold a fifth of `examples` each. Inputs are float32.
    """

    use = "synthetic"
    formula = "prototype[class] + noise x, prototypes and x from N(0, 1)"
    source = "lotteryfw"

    examples: int = Field(default=1000, ge=5)
    """Training examples."""
    classes: int = Field(default=10, ge=2)
    """Number of classes, of equal size."""
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [1, 8, 8]
    """Shape of one input: [features], or [channels, height, width] for convolutions."""
    noise: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise; the prototypes' is 1."""
    data_seed: int = Field(default=0, ge=0)
    """Draws prototypes and noise; apart from the seeds of a study."""

    def facts(self, folder: Path) -> DatasetInfo:
        fifth = self.examples // 5
        return DatasetInfo(
            tuple(self.shape), self.classes, self.examples, validation=fifth, test=fifth
        )

    def load(self, folder: Path) -> Dataset:
        import torch

        facts = self.facts(folder)
        rng = stream(OwnStream.SYNTHETIC, self.data_seed, "prototypes")
        prototypes = torch.randn(self.classes, *self.shape, generator=rng)
        return Dataset(
            train=self._draw("train", facts.train, prototypes),
            validation=self._draw("validation", facts.validation, prototypes),
            test=self._draw("test", facts.test, prototypes),
        )

    def _draw(self, part: str, size: int, prototypes: Tensor) -> Subset:
        import torch

        labels = torch.arange(size) % self.classes
        # a stream for each part, so that more training examples leave the test part as it is
        rng = stream(OwnStream.SYNTHETIC, self.data_seed, part)
        noise = torch.randn(size, *self.shape, generator=rng)
        return Subset(prototypes[labels] + self.noise * noise, labels)
