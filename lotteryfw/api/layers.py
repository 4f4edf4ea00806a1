"""The view of a network that components get: its prunable layers, their masks and budgets.

Author code sees one network, dense, float32, on its own. How many of them run, where, and from
which cache is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Need(Enum):
    """An input of a criterion beyond the weights before and after training."""

    GRADIENT = "gradient"
    """`layer.gradient`: gradient of the mean training loss at w_f, over the whole training set."""
    PROBE = "probe"
    """The criterion scores whole networks: see `NetworkCriterion`."""


# A text, so that the point of a policy can be written into a key as it is.
LATEST: Literal["latest"] = "latest"

"""The weights the round just trained ended with: nothing is rewound."""


@dataclass(frozen=True)
class LayerInfo:
    """The shape of one prunable tensor: `name` is its parameter's path, such as "fc1.weight"."""

    name: str
    shape: tuple[int, ...]
    is_output: bool = False

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Inputs read by one unit: `shape[1]` times the kernel's area."""
        # A convolution reads each input channel once for every place of its kernel.
        return prod(self.shape[1:])

    @property
    def fan_out(self) -> int:
        """Outputs fed by one unit: `shape[0]` times the kernel's area."""
        return self.shape[0] * prod(self.shape[2:])


@dataclass(frozen=True)
class Layer:
    """One prunable tensor of one network, as a criterion or an action sees it.

    Every tensor has shape `info.shape`.

    A criterion reads it before the cut, an action after it. With rewinding to step 0, `original`
    and `rewound` agree. `init` agrees with them on every weight that is alive where both actions
    leave such weights as they were rewound, as the mask-1 action `rewind` without `rescale` and all
    mask-0 actions but `init_zero_all` do.
    """

    info: LayerInfo
    original: Tensor
    """float32: the dense network at step 0."""
    init: Tensor
    """float32: what the round just trained started from, the papers' w_i."""
    final: Tensor
    """float32: what it ended with, the papers' w_f."""
    rewound: Tensor
    """float32: the point of the dense run that the rewind policy names; `final` for LATEST."""
    mask: Tensor
    """bool, True = alive: before the cut for a criterion, after it for an action."""
    mask_before: Tensor
    """bool, True = alive: before the cut, always."""
    rng: torch.Generator
    """A stream of this layer, level and purpose alone."""
    _resample: Callable[[], Tensor] = field(repr=False)
    _gradient: Tensor | None = field(default=None, repr=False)
    _probed: Tensor | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The parameter's path in its network."""
        return self.info.name

    @property
    def cut(self) -> Tensor:
        """bool: the weights that this level's cut removed; all False for a criterion."""
        # What earlier cuts removed is in neither mask.
        return self.mask_before & ~self.mask

    @property
    def gradient(self) -> Tensor:
        """float32: gradient of the mean training loss at `final`.

        Raises AttributeError unless `needs` names it.
        """
        # As for an attribute that is not there: a criterion that forgot its need is told which.
        if self._gradient is None:
            raise AttributeError(
                "layer.gradient is only there for a criterion with "
                "needs = frozenset({Need.GRADIENT})"
            )
        return self._gradient

    @property
    def probed(self) -> Tensor:
        """Floating point: the scores that a `NetworkCriterion` gave this layer.

        Raises AttributeError for any other criterion.
        """
        if self._probed is None:
            raise AttributeError("layer.probed is only there for a NetworkCriterion")
        return self._probed

    def resample(self) -> Tensor:
        """Return a fresh draw, float32, from the layer's own initialiser.

        At one level every call returns the same draw.
        """
        return self._resample()


@dataclass(frozen=True)
class Group:
    """Layers that share one budget: of their living weights the `keep` best are kept.

    `requested` is the unrounded number, for the record.
    """

    layers: tuple[str, ...]
    keep: int
    requested: float


@dataclass(frozen=True)
class ControlLayer:
    """One layer of a recorded ticket, as a control sees it. Every tensor has shape `info.shape`."""

    info: LayerInfo
    original: Tensor
    """float32: the dense network at step 0."""
    start: Tensor
    """float32: what the ticket's training starts from. After a control has given another mask:
    what it would start from with that mask, by rewinding and both actions."""
    rewound: Tensor
    """float32: the value that the rewind policy gives each weight, whatever the mask. For LATEST
    it is the last value that training gave the weight before it was removed."""
    mask: Tensor
    """bool, True = alive: the ticket's mask."""
    rng: torch.Generator
    """A stream of this control, level and layer alone."""
    _random_mask: Callable[[], Tensor] = field(repr=False)
    _resample: Callable[[], Tensor] = field(repr=False)

    @property
    def name(self) -> str:
        """The parameter's path in its network."""
        return self.info.name

    def random_mask(self) -> Tensor:
        """bool: a random mask of the same density, the same one for all controls of a level."""
        return self._random_mask()

    def resample(self) -> Tensor:
        """float32: a fresh draw from the layer's own initialiser, the same at each call at a level."""
        return self._resample()


@dataclass(frozen=True)
class MaskedLayer:
    """The edges of one layer while their mask is learned. Every tensor has shape `info.shape`."""

    info: LayerInfo
    weights: Tensor
    """float32: what the edges weigh. They are trained where the parametrization `trains_weights`."""
    scores: Tensor
    """float32, of the parametrization's `score_shape`: what the optimizer updates, in place."""
    allowed: Tensor
    """bool: the edges that a mask may keep; the others were removed for good."""
    progress: float | None = None
    """The share of the schedule that has passed, in [0, 1), for `weight` and `penalty` in a step of
    the training. None for every other method, in an evaluation, and where the mask that is found is
    asked for."""


class UpdateFactors(NamedTuple):
    """The factors of the optimizer's options for one tensor that is trained."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0


@dataclass(frozen=True)
class MaskedNetwork:
    """A network whose mask is learned, as a parametrization sees it."""

    edges: Mapping[str, MaskedLayer]
    """By layer, in the order of the network."""
    budgets: tuple[Group, ...]
    """The numbers of edges to keep; empty where the search asks for no density."""
    draw: Callable[[LayerInfo, torch.Generator], Tensor] = field(repr=False)
    """float32 [s]: a fresh draw of a layer's weights from the recipe's initialiser."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """A cache that lives as long as a training in one process; it must never decide a result."""
