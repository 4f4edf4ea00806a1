"""Asking the components of a cell, so that what goes wrong in them is told by their name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lotteryfw.cell import Cell
from lotteryfw.errors import LotteryError, PluginError
from lotteryfw.jobs import Spec
from lotteryfw.select import check_tensor
from lotteryfw.views import Layer, Leaf

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Asking:
    """Calls a cell's components by their slot. Raises PluginError and ContractError that name who broke what."""

    def __init__(self, cell: Cell, specs: Mapping[str, Spec]):
        self._cell = cell
        self._specs = specs

    def who(self, slot: str) -> str:
        """A component as messages name it: kind, name, provider."""
        spec = self._specs[slot]
        return f"{spec.kind} '{spec.use}' of {spec.provider}"

    def component(self, slot: str, method: str, *given: Any) -> Any:
        """What a component's method answers."""
        try:
            return getattr(getattr(self._cell, slot), method)(*given)
        except LotteryError:
            raise
        except Exception as error:
            leaf = next((f" on leaf {item.name}" for item in given if isinstance(item, Leaf | Layer)), "")
            what = f"broke in {method}(){leaf}: {type(error).__name__}: {error}"
            raise PluginError(f"{self.who(slot)} {what}") from error

    def leaf(self, slot: str, method: str, leaf: Leaf, *more: Any) -> Tensor:
        """What a component answers about a leaf: a float tensor of its shape."""
        value = self.component(slot, method, leaf, *more)
        return check_tensor(value, leaf.layer.shape, f"{self.who(slot)}: {method}() on leaf {leaf.name}")

    def draw(self, method: str, layer: Layer, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """float32 [shape]: what the initialiser draws for a layer."""
        value = self.component("initialiser", method, layer, rng)
        return check_tensor(value, shape, f"{self.who('initialiser')}: {method}() on leaf {layer.name}").float()
