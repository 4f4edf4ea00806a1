"""How many trainings the recipes of deep networks ask for: one dense run serves every rewind point."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT
from support.recipes import NOWHERE, registry

import lotteryfw
from lotteryfw.engine.runtime import layer_infos
from lotteryfw.recipe import load_recipe
from lotteryfw.runner import StudyContext

NO_CONTROLS = ["seeds=[0]", "controls=[]", "analyses=[]", "claim=[]"]


def trainings(tmp_path: Path, recipe: str, *sets: str) -> int:
    """Return how many different trainings a recipe asks for with one seed and no controls."""
    path = ROOT / "recipes" / f"{recipe}.toml"
    plan = lotteryfw.plan(path, sets=[*NO_CONTROLS, *sets], data=tmp_path, store=tmp_path / "store")
    return plan.trainings


def test_six_rewind_points_of_ten_levels_are_one_dense_and_sixty_sparse_networks(
    tmp_path: Path,
) -> None:
    only = 'studies.rewinding.grid."rewind.step"=["0it","0.1%","100it","500it","2%","7%"]'
    # each of the two other studies has a rate or a schedule of its own: a dense run and ten levels
    others = 2 * 11
    sets = ("search.levels=10", only)
    assert trainings(tmp_path, "stabilizing_resnet20", *sets) == 1 + 60 + others


def test_a_step_written_in_three_ways_is_one_rewind_point(tmp_path: Path) -> None:
    # an epoch of CIFAR-10 has 351 batches of 128, and the training 30,000 steps
    one = 'studies.rewinding.grid."rewind.step"=["702it","2ep","2.34%"]'
    with pytest.raises(
        lotteryfw.RecipeError, match="asks for the same jobs for each of its values"
    ):
        trainings(tmp_path, "stabilizing_resnet20", "search.levels=10", one)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # five rewind points and two remedies, fifteen levels each
        ("stabilizing_vgg19", 1 + 5 * 15 + 2 * (1 + 15)),
        # five rewind points of two networks
        ("stability", (1 + 5 * 15) + (1 + 5 * 10)),
        # two networks and four densities: one cycle, and five for each of two kinds of pruning,
        # of which the first is one training
        ("iep_cifar", 2 * 4 * (1 + 5 + 4)),
        # fifteen settings of Conv-8, and five rates × three decays of ResNet-18, for each data set
        ("dying_ratio_conv", 2 * (15 + 15)),
        # at two densities: the networks of level 0 are one for each length
        ("strong_generator", (1 + 2) + (1 + 2)),
    ],
)
def test_trainings_of_each_recipe(tmp_path: Path, recipe: str, expected: int) -> None:
    assert trainings(tmp_path, recipe) == expected


OF_RESNET20 = [
    "stabilizing_resnet20", "stability", "linear_mode_connectivity", "rewind_vs_finetune",
]  # fmt: skip


@pytest.mark.parametrize("recipe", OF_RESNET20)
def test_shortcuts_and_the_output_layer_of_resnet20_are_not_pruned(recipe: str) -> None:
    """As Frankle & Carbin 2019 have it: 2,560 weights of shortcuts and 640 of the output layer."""
    loaded = load_recipe(ROOT / "recipes" / f"{recipe}.toml", registry(), data_folder=NOWHERE)
    cells = {cell.study: cell for cell in loaded.cells if cell.model.use == "resnet20"}
    assert cells
    for cell in cells.values():
        layers = layer_infos(cell.model, cell.model.build((3, 32, 32), 10))
        sizes = {layer.name: layer.size for layer in layers}
        pruned = {name for group in cell.scope.groups(layers, sizes, 1) for name in group.layers}
        exempt = {name: size for name, size in sizes.items() if name not in pruned}
        assert exempt.pop("fc.weight") == 640
        assert all("shortcut" in name for name in exempt)
        assert sum(exempt.values()) == 2560


@pytest.mark.parametrize("recipe", OF_RESNET20)
def test_claims_are_about_levels_that_the_recipe_has(recipe: str, tmp_path: Path) -> None:
    path = ROOT / "recipes" / f"{recipe}.toml"
    StudyContext(path, data=tmp_path, store=tmp_path / "store").validate_models("cpu")
