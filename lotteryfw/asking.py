"""Asking the components of a cell, so that what goes wrong in them is told by their name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lotteryfw.errors import ContractError, LotteryError, PluginError
from lotteryfw.jobs import Spec
from lotteryfw.select import check_tensor
from lotteryfw.views import Edges, Layer, Leaf, Scored

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Asking:
    """Calls a cell's components by their slot. Raises PluginError and ContractError that name who broke what."""

    def __init__(self, parts: object, specs: Mapping[str, Spec]):
        """`parts` has a component under the name of each slot, as a cell has."""
        self._parts = parts
        self._specs = specs

    def who(self, slot: str) -> str:
        """A component as messages name it: kind, name, provider."""
        spec = self._specs[slot]
        return f"{spec.kind} '{spec.use}' of {spec.provider}"

    def component(self, slot: str, method: str, *given: Any) -> Any:
        """What a component's method answers."""
        try:
            return getattr(getattr(self._parts, slot), method)(*given)
        except LotteryError:
            raise
        except Exception as error:
            layers = [item if isinstance(item, Layer) else item.layer
                      for item in given if isinstance(item, Leaf | Layer | Edges)]  # fmt: skip
            leaf = f" on leaf {layers[0].name}" if layers else ""
            what = f"broke in {method}(){leaf}: {type(error).__name__}: {error}"
            raise PluginError(f"{self.who(slot)} {what}") from error

    def leaf(self, slot: str, method: str, leaf: Leaf, *more: Any) -> Tensor:
        """What a component answers about a leaf: a float tensor of its shape."""
        value = self.component(slot, method, leaf, *more)
        return check_tensor(value, leaf.layer.shape, f"{self.who(slot)}: {method}() on leaf {leaf.name}")

    def weight(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """float32 [s]: weights that the initialiser draws for a layer."""
        return self.draw("weight", layer, layer.shape, rng)

    def scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """float32 [s]: the scores that a layer's edges begin with."""
        slot, method = ("scores", "weight") if "scores" in self._specs else ("parametrization", "initial")
        value = self.component(slot, method, layer, rng)
        return check_tensor(value, layer.shape, f"{self.who(slot)}: {method}() on leaf {layer.name}").float()

    def masks(self, net: Scored) -> dict[str, Tensor]:
        """By leaf, bool: the masks that scores stand for."""
        import torch

        masks: dict[str, Tensor] = self.component("parametrization", "masks", net)
        for name, edges in net.edges.items():
            mask = masks.get(name)
            fits = mask is not None and mask.dtype == torch.bool and mask.shape == edges.scores.shape
            if mask is None or not fits or bool((mask & ~edges.allowed).any()):
                raise ContractError(
                    f"{self.who('parametrization')}: masks() must give a bool mask of shape {list(edges.scores.shape)} "
                    f"for leaf {name}, alive only where edges.allowed"
                )
        return masks

    def draw(self, method: str, layer: Layer, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """float32 [shape]: what the initialiser draws for a layer."""
        value = self.component("initialiser", method, layer, rng)
        return check_tensor(value, shape, f"{self.who('initialiser')}: {method}() on leaf {layer.name}").float()
