"""Controls are components: recipes give them options, plugins add more, faulty ones are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labs import played
from support.recipes import changed, faults
from support.runs import recipe
from support.small import cell, describe, lab, make
from torch import Tensor

from lotteryfw import ContractError, Control, ControlLayer
from lotteryfw.api.component import Component
from lotteryfw.api.errors import PluginError, RecipeError
from lotteryfw.api.steps import Clock
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner import run_study as run
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.jobs import Spec
from lotteryfw.search.lab import CellLab
from lotteryfw.testkit import trial

PLUGIN = """
from lotteryfw import Control, hookimpl
import torch


class Shuffled(Control):
    \"\"\"Trains the ticket's mask, its positions shuffled within the layer.\"\"\"

    use = "shuffled"
    formula = "the ticket's mask, permuted"
    scale: float = 1.0

    def mask(self, layer):
        order = torch.randperm(layer.info.size, generator=layer.rng)
        return layer.mask.flatten()[order].reshape(layer.info.shape)

    def kept_values(self, layer):
        return layer.rewound * self.scale

    def masked_values(self, layer):
        return None


@hookimpl
def register_components():
    return [Shuffled]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "shuffled.py"
    path.write_text(PLUGIN)
    return path


def test_a_plugin_file_adds_a_control(plugin: Path, tmp_path: Path) -> None:
    table = recipe(
        plugins=[str(plugin)],
        controls=[{"use": "shuffled", "scale": 0.5}, "random_mask"],
    )
    done = run(
        table, trust=[plugin], out=tmp_path / "run", store=tmp_path / "store", jobs=1, device="cpu"
    )
    variants = [row.variant for row in done.levels if row.level == 1]
    assert variants == ["ticket", "shuffled", "random_mask"]
    kept = {row.weights_kept for row in done.levels if row.level == 1}
    assert len(kept) == 1


def test_a_plugins_control_passes_its_trial(plugin: Path) -> None:
    trial(Registry.load([plugin]).find("control", "shuffled").cls)


def test_a_controls_options_are_checked_and_part_of_what_it_is(plugin: Path) -> None:
    registry = Registry.load([plugin])

    def origin(scale: float) -> str:
        control: Any = registry.create("control", {"use": "shuffled", "scale": scale})

        def describe_all(component: Component, clock: Clock) -> Spec:
            if component is control:
                return Spec("control", "mine/shuffled", "mine==1", control.options(clock))
            return describe(component, clock)

        desk = CellLab(cell(), describe_all, Path("unused"), "cpu")
        plan_cell(desk)
        return desk.control(control, desk.records[1]).origin

    assert origin(0.5) == origin(0.5) != origin(2.0)

    table = changed(controls=[{"use": "shuffled", "scale": "big"}])
    with pytest.raises(RecipeError) as error:
        load_recipe(table, registry, data_folder=Path("unused"))
    assert "controls[0].scale: must be a number" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"controls": ["reinit", "random_mask", "reinit"]},
            "controls[2]: another control is recorded under the name 'reinit' already",
        ),
        ({"controls": [{"use": "reinit", "x": 1}]}, "controls[0].x: the control 'reinit' has no"),
        ({"controls": "reinit"}, "controls: must be a list"),
    ],
)
def test_a_recipes_controls_are_checked(changes: dict[str, Any], fault: str) -> None:
    (found,) = faults(changed(**changes))
    assert fault in found


def test_a_controls_name_must_not_be_a_variant_of_the_search(tmp_path: Path) -> None:
    path = tmp_path / "named.py"
    path.write_text(PLUGIN.replace('use = "shuffled"', 'use = "ticket"'))
    registry = Registry.load([path])
    with pytest.raises(RecipeError, match=r"controls.0.: what a search finds is recorded under"):
        load_recipe(changed(controls=["ticket"]), registry, data_folder=Path("unused"))


class Half(Control):
    """Keeps half of what the ticket keeps."""

    use = "half"

    def mask(self, layer: ControlLayer) -> Tensor:
        kept = layer.mask.flatten().nonzero().flatten()
        mask = torch.zeros(layer.info.size, dtype=torch.bool)
        mask[kept[: len(kept) // 2]] = True
        return mask.reshape(layer.info.shape)


class Soft(Control):
    """Gives a mask of numbers."""

    use = "soft"

    def mask(self, layer: ControlLayer) -> Tensor:
        return layer.mask.float()


class Changing(Control):
    """Changes what it is shown."""

    use = "changing"

    def kept_values(self, layer: ControlLayer) -> Tensor:
        return layer.start.mul_(2)


class Broken(Control):
    """Breaks."""

    use = "broken"

    def masked_values(self, layer: ControlLayer) -> Tensor:
        raise KeyError("y")


def controls() -> Iterator[tuple[Control, type[Exception], str]]:
    yield (
        Half(),
        ContractError,
        r"control .mine.half. of mine==1: mask\(\) on layer .* the ticket keeps",
    )
    yield Soft(), ContractError, r"mask\(\) on layer .* must return a bool tensor of shape \["
    yield Changing(), ContractError, r"kept_values\(\) on layer .* changed `start` in place"
    yield Broken(), PluginError, r"broke in masked_values\(\) on layer .*: KeyError: 'y'"


@pytest.mark.parametrize(("control", "error", "message"), list(controls()))
def test_a_control_that_breaks_its_promises_is_named(
    control: Control, error: type[Exception], message: str
) -> None:
    def describe_all(component: Component, clock: Clock) -> Spec:
        if component is control:
            return Spec("control", f"mine/{control.use}", "mine==1", {})
        return describe(component, clock)

    desk = CellLab(cell(), describe_all, Path("unused"), "cpu")
    record = played(desk)[1]
    with pytest.raises(error, match=message):
        desk.job(desk.control(control, record))


@pytest.mark.parametrize("cls", [Half, Soft, Changing, Broken])
def test_the_trial_notices_broken_promises(cls: type[Control]) -> None:
    with pytest.raises(ContractError, match=f"control '{cls.use}'"):
        trial(cls)


def test_untrained_and_reinit_take_the_steps_they_say() -> None:

    desk = lab(cell())
    record = played(desk)[1]
    assert desk.job(desk.control(make("control", "untrained"), record)).steps == 0
    assert desk.job(desk.control(make("control", "reinit"), record)).steps == 20


def test_resolved_controls_keep_their_options(plugin: Path) -> None:
    registry = Registry.load([plugin])
    table = changed(controls=[{"use": "shuffled", "scale": 0.5}])
    loaded = load_recipe(table, registry, data_folder=Path("unused"))
    (study,) = loaded.resolved()["study"]
    assert study["controls"] == [{"use": "shuffled", "scale": 0.5}]
    again = load_recipe(loaded.resolved(), registry, data_folder=Path("unused"))
    assert again.cells == loaded.cells
    assert json.dumps(again.resolved()) == json.dumps(loaded.resolved())
