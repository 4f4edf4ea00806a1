"""Made-up text, for trying out networks that read tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lotteryfw import Dataset, DatasetInfo, DataSource, Subset, stream
from lotteryfw.std.draws import OwnStream

if TYPE_CHECKING:
    from torch import Tensor


class SyntheticText(DataSource):
    """Sequences of random tokens; each class has a pattern of tokens that shows through.

    Validation and test part hold a fifth of `examples` each. Inputs are int64 tokens.
    """

    use = "synthetic_text"
    formula = "token_i = pattern[class]_i with probability `signal`, else uniform"
    source = "lotteryfw"

    examples: int = Field(default=1000, ge=5)
    """Training examples."""
    classes: int = Field(default=4, ge=2)
    """Number of classes, of equal size."""
    length: int = Field(default=12, ge=1)
    """Tokens of one sequence."""
    vocabulary: int = Field(default=50, ge=2)
    """Number of different tokens."""
    signal: float = Field(default=0.5, ge=0, le=1)
    """Probability of a token of the class's pattern."""
    data_seed: int = Field(default=0, ge=0)
    """Draws patterns and examples; apart from the seeds of a study."""

    def facts(self, folder: Path) -> DatasetInfo:
        fifth = self.examples // 5
        return DatasetInfo(
            (self.length,), self.classes, self.examples, fifth, fifth, vocabulary=self.vocabulary
        )

    def load(self, folder: Path) -> Dataset:
        import torch

        facts = self.facts(folder)
        rng = stream(OwnStream.SYNTHETIC, self.data_seed, "patterns")
        patterns = torch.randint(self.vocabulary, (self.classes, self.length), generator=rng)
        return Dataset(
            train=self._draw("train", facts.train, patterns),
            validation=self._draw("validation", facts.validation, patterns),
            test=self._draw("test", facts.test, patterns),
        )

    def _draw(self, part: str, size: int, patterns: Tensor) -> Subset:
        import torch

        # classes of equal size, as far as the number of examples allows
        labels = torch.arange(size) % self.classes
        # a stream for each part, so that more training examples leave the test part as it is
        rng = stream(OwnStream.SYNTHETIC, self.data_seed, f"text {part}")
        shape = (size, self.length)
        noise = torch.randint(self.vocabulary, shape, generator=rng)
        shows = torch.rand(shape, generator=rng) < self.signal
        return Subset(torch.where(shows, patterns[labels], noise), labels)
