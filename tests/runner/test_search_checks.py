"""What only the networks show about searches and kernels is refused where it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recipes import changed

import lotteryfw
from lotteryfw.api.errors import RecipeError
from lotteryfw.runner import StudyContext

LEARNED = {
    "search": {"use": "supermask"},
    "parametrization": "bernoulli",
    "mask_optimizer": {"use": "sgd", "lr": 100.0},
}


def recipe(**tables: Any) -> dict[str, Any]:
    mask_optimizer = tables.pop("mask_optimizer", None)
    train = {"length": "2it", "batch": 8, "optimizer": {"use": "sgd", "lr": 0.1}}
    if mask_optimizer:
        train["mask_optimizer"] = mask_optimizer
    return changed(data="digits", train=train, seeds=[0], **tables)


def faults(table: dict[str, Any], folder: Path) -> list[str]:
    """The faults of a recipe that is refused before anything is computed."""
    with pytest.raises(RecipeError) as raised:
        lotteryfw.run(table, out=folder / "run", store=folder / "store", jobs=1, report=False)
    assert not (folder / "run" / "levels.csv").exists()
    return [str(fault) for fault in raised.value.faults]


IMP = {"use": "imp", "levels": 24}
REFUSED = {
    "a pattern that names no layer": (
        {"scope": {"use": "layerwise", "rates": {"fc9": 0.5}}},
        ["recipe: scope: scope 'layerwise': no prunable layer is called 'fc9'"],
    ),
    "a rate that leaves nothing": (
        {"scope": {"use": "global", "rate": 0.9}, "search": IMP},
        ["recipe: scope: scope 'global' {'rate': 0.9, 'exclude': []} leaves no weights at level "],
    ),
    "each rate of a grid": (
        {"search": IMP, "grid": {"scope.rate": [0.9, 0.8]}},
        ["recipe: scope: scope 'layerwise' ", "recipe: scope: scope 'layerwise' "],
    ),
    "a scope of an axis": (
        {"search": IMP, "grid": {"scope": ["global", {"use": "global", "rate": 0.9}]}},
        [
            "recipe: grid.scope: scope 'global' {'rate': 0.9, 'exclude': []} leaves no weights at level "
        ],
    ),
    "a kernel that trains no such network": (
        {"engine": {"kernel": "fused"}, "model": "conv2"},
        ["recipe: engine.kernel: kernel 'fused' cannot train this: "],
    ),
    "a kernel that trains the network, and learns no such mask": (
        LEARNED
        | {
            "engine": {"kernel": "fused"},
            "parametrization": {"use": "bernoulli", "rescale": "static"},
        },
        ["recipe: engine.kernel: kernel 'fused' cannot train this: it has the rules top_k"],
    ),
}


REFUSED |= {
    "an objective of an axis": (
        {
            "engine": {"kernel": "fused"},
            "grid": {"train.objective": ["classification", {"use": "l1", "strength": 0.001}]},
        },
        ["recipe: engine.kernel: kernel 'fused' cannot train this: "],
    ),
    "a batch of an axis": (
        {"engine": {"kernel": "lockstep"}, "grid": {"train.batch": [8, 1]}},
        ["recipe: engine.kernel: kernel 'lockstep' cannot train this: "],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_file_and_key_before_any_training(case: str, tmp_path: Path) -> None:
    tables, starts = REFUSED[case]
    texts = faults(recipe(**tables), tmp_path)
    assert len(texts) == len(starts)
    for text, start in zip(texts, starts, strict=True):
        assert text.startswith(start)


def test_the_fault_of_a_policy_is_the_policys(tmp_path: Path) -> None:
    search = {"use": "at_init", "densities": [0.5]}
    rewind = {"use": "to_step", "step": "1it"}
    expected = "rewind 'to_step' goes back to step 1 of a training"
    (text,) = faults(recipe(search=search, rewind=rewind, criterion="random"), tmp_path)
    assert text.startswith(f"recipe: rewind: {expected}")
    # an axis whose first value is right
    grid = {"rewind": ["to_init", rewind]}
    (text,) = faults(recipe(search=search, grid=grid, criterion="random"), tmp_path)
    assert text.startswith(f"recipe: grid.rewind: {expected}")


def test_a_kernel_is_named_for_what_it_can_train(tmp_path: Path) -> None:
    for tables in ({"engine": {"kernel": "fused"}}, LEARNED | {"engine": {"kernel": "reference"}}):
        StudyContext(recipe(**tables), store=tmp_path, data=tmp_path).validate_models("cpu")


@pytest.mark.parametrize("train_weights", [False, True])
def test_plans_know_masks_that_are_learned_from_trainings_of_weights(
    tmp_path: Path, train_weights: bool
) -> None:
    table = recipe(**LEARNED | {"search": {"use": "supermask", "train_weights": train_weights}})
    measured = StudyContext(table, store=tmp_path / "empty", data=tmp_path).plan(measure=True)
    assert measured.seconds is not None
    lotteryfw.run(table, out=tmp_path / "run", store=tmp_path / "store", jobs=1, report=False)
    # Another seed: nothing of it is stored, and what it costs is known from the first.
    context = StudyContext(table | {"seeds": [1]}, store=tmp_path / "store", data=tmp_path)
    other = context.plan()
    assert other.stored == 0
    assert other.seconds is not None
    assert other.bytes is not None
    assert measured.bytes is not None
    # figures and a curve are small beside four bytes a weight and a score
    assert 0.5 < other.bytes / measured.bytes < 2
    dense = recipe(search={"use": "imp", "levels": 0})
    context = StudyContext(dense, store=tmp_path / "store", data=tmp_path)
    assert (context.plan().seconds is None) == (not train_weights)
