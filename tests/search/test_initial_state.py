"""The values of a network at step 0, where layers share parameters."""

from __future__ import annotations

from dataclasses import replace

import torch
from support.small import cell
from torch import Tensor, nn

from lotteryfw import DatasetInfo, Initialiser, LayerInfo, ModelFamily
from lotteryfw.search.initial_state import InitialState, initial_state
from lotteryfw.search.jobs import Spec

INFO = DatasetInfo((1, 4, 4), 3, 1, 1, 1)


class Numbered(Initialiser):
    """Draws weights of 1 and biases of 2."""

    use = "numbered"

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return torch.ones(layer.shape)

    def bias(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return torch.full((layer.shape[0],), 2.0)


class Shared(ModelFamily):
    """Three layers, of which the second and the third share a parameter."""

    use = "shared"
    parameter: str

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        second, third = nn.Linear(16, 16), nn.Linear(16, 16)
        setattr(third, self.parameter, getattr(second, self.parameter))
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 16), second, nn.ReLU(), third, nn.Linear(16, classes)
        )


def drawn(parameter: str) -> InitialState:
    of = replace(cell(), model=Shared(parameter=parameter), initialiser=Numbered())
    names = {"model": of.model, "objective": of.objective, "initialiser": of.initialiser}
    specs = {slot: Spec(slot, part.use, "test", {}) for slot, part in names.items()}
    return initial_state(of, specs, INFO, 0)


def test_a_layer_of_a_tied_weight_has_a_bias_of_the_initialiser() -> None:
    values = drawn("weight").values
    names = [f"{place}.{part}" for place in (1, 2, 4, 5) for part in ("weight", "bias")]
    assert list(values) == [name for name in names if name != "4.weight"]
    for name, value in values.items():
        assert bool((value == (1 if name.endswith("weight") else 2)).all()), name


def test_a_tied_bias_has_one_name() -> None:
    state = drawn("bias")
    assert "4.bias" not in state.values
    assert [layer.name for layer in state.layers] == [
        "1.weight",
        "2.weight",
        "4.weight",
        "5.weight",
    ]
    for name, value in state.values.items():
        assert bool((value == (1 if name.endswith("weight") else 2)).all()), name
