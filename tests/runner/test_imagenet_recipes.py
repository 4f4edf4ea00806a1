"""The ImageNet recipes: planned and checked without data, and three steps of each on a generated folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run

RECIPES = sorted((ROOT / "recipes").glob("imagenet_*.toml"))
REWINDING = {
    "imagenet_resnet50": (0.3, "4.4%"),
    "imagenet_inception_v3": (0.3, "3.5%"),
    "imagenet_squeezenet": (0.5, "6.6%"),
}
"""By recipe, the density and the rewind point of Frankle et al. 2019."""
LARGE = {"imagenet_resnet50", "imagenet_inception_v3", "imagenet_edge_popup", "imagenet_iep"}
"""Their three steps take minutes on a CPU."""


def names(large: set[str]) -> list[object]:
    """The recipes, those of large networks marked."""
    parameters: list[object] = []
    for path in RECIPES:
        marks = [pytest.mark.large] if path.stem in large else []
        parameters.append(pytest.param(path, id=path.stem, marks=marks))
    return parameters


def context(path: Path, folder: Path, *sets: str, profile: str | None = None) -> StudyContext:
    return StudyContext(path, data=folder, store=folder / "store", sets=sets, profile=profile)


@pytest.mark.parametrize("profile", [None, "quick"])
@pytest.mark.parametrize("path", names(set()))
def test_it_is_planned_without_imagenet(path: Path, profile: str | None, tmp_path: Path) -> None:
    study = context(path, tmp_path, profile=profile)
    study.validate_parts()
    plan = study.plan()
    cells = study.recipe.cells
    assert plan.cells == len(cells)
    for cell in cells:
        assert cell.data.facts(tmp_path).streamed
        assert [part.use for part in cell.augment] == ["random_resized_crop", "flip"]
    if profile is None:
        # as long as the claims need, in epochs of 1,271,167 images in whole batches
        epochs = 90 if path.stem in REWINDING else 100
        for cell in cells:
            assert cell.clock.total == 1_271_167 // cell.batch * epochs
            for claim in study.recipe.claims:
                assert claim.needs_length is not None
                assert cell.clock.steps(claim.needs_length) == cell.clock.total


@pytest.mark.parametrize("path", names(LARGE))
def test_its_networks_and_claims_are_checked_without_imagenet(path: Path, tmp_path: Path) -> None:
    context(path, tmp_path).validate_models("cpu")


@pytest.mark.parametrize("name", REWINDING)
def test_the_sizes_and_rewind_points_are_those_of_the_paper(name: str, tmp_path: Path) -> None:
    density, point = REWINDING[name]
    study = context(ROOT / "recipes" / f"{name}.toml", tmp_path)
    assert {str(cell.axes["rewind.step"]) for cell in study.recipe.cells} == {"0it", point}
    for cell in study.recipe.cells:
        assert 1 - cell.scope.rate == pytest.approx(density)  # type: ignore[union-attr]
    for claim in study.recipe.claims:
        assert claim.density is not None
        assert claim.density[0] < density < claim.density[1]


@pytest.mark.parametrize("path", names(LARGE))
def test_three_steps_of_it_run_on_streamed_images(
    path: Path, picture_folder: Path, tmp_path: Path
) -> None:
    # the smallest that each network takes
    side = {"imagenet_inception_v3": 80, "imagenet_squeezenet": 64}.get(path.stem, 32)
    table = (
        f'data={{use="image_folder", path="{picture_folder}", size={side}, streamed=true, '
        'damaged="skip", validation=10, normalise="imagenet"}'
    )
    sets = [table, "seeds=[0]", "train.length=3it", "train.batch=4", "evaluate.every=3it"]
    sets += ["train.schedule=constant", "train.precision=bf16"]
    if path.stem in REWINDING:
        # 4.4 % of three steps would be none
        sets += ['grid."rewind.step"=["1it"]', "controls=[]"]
        # without warmup, batches of four do not bear the paper's rate
        sets += ["train.optimizer.lr=0.001"]
    if path.stem == "imagenet_iep":
        sets += ["train.length=5it"]  # a step for each of its cycles
    study = run(path, out=tmp_path / "run", data=tmp_path, store=tmp_path / "store", sets=sets)
    rows = list(study.levels)
    assert rows
    for row in rows:
        assert row.status == "done"
        assert 0 <= row.test_accuracy <= 1
    if path.stem in REWINDING:
        (ticket,) = [row for row in rows if row.level == 1]
        density, _ = REWINDING[path.stem]
        assert ticket.density == pytest.approx(density, abs=1e-4)
