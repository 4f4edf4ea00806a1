"""The tensors of one network, and their names in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SEPARATOR = "/"
"""Stands between a part and a name in a file. No path of a parameter has a slash."""
_MASKS, _SCORES = "masks", "scores"


@dataclass(frozen=True)
class NetworkState:
    """The tensors of one network at one step, by the names of its parameters and buffers.

    `encoded` and `decoded` turn a state into one flat dict and back, which is how a state is kept
    in a file. No other code knows the names in that dict.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """Every parameter and buffer."""
    masks: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """By layer, bool: the masks that the network computes with, where they outlive a step."""
    scores: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """By layer: the scores of a mask that is learned."""
    extra: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    """By a name of its own, further tensors by layer, such as which edges a mask ever had."""

    def encoded(self) -> dict[str, Tensor]:
        """Return all tensors in one dict.

        >>> sorted(NetworkState({"fc1.weight": 0}, scores={"fc1.weight": 1}).encoded())
        ['fc1.weight', 'scores/fc1.weight']
        """
        tensors = dict(self.values)
        # Masks and scores have the names of weights, so each part stands under a prefix.
        parts = {_MASKS: self.masks, _SCORES: self.scores, **self.extra}
        for part, by_layer in parts.items():
            for name, tensor in by_layer.items():
                tensors[f"{part}{_SEPARATOR}{name}"] = tensor
        return tensors

    @classmethod
    def decoded(cls, tensors: Mapping[str, Tensor]) -> NetworkState:
        """Return the state that `encoded` made a dict of."""
        values: dict[str, Tensor] = {}
        parts: dict[str, dict[str, Tensor]] = {}
        for label, tensor in tensors.items():
            # The first slash ends the part: the names of further tensors may have slashes.
            part, separator, name = label.partition(_SEPARATOR)
            if separator:
                parts.setdefault(part, {})[name] = tensor
            else:
                values[label] = tensor
        masks, scores = parts.pop(_MASKS, {}), parts.pop(_SCORES, {})
        return cls(values, masks, scores, parts)

    def copied(self) -> NetworkState:
        """Return a state whose tensors are copies."""
        return self.decoded({name: tensor.clone() for name, tensor in self.encoded().items()})
