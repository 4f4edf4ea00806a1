"""A component that breaks, or returns what its kind does not allow, is named with its distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import go, recipe

from lotteryfw.api.errors import ContractError, RecipeError
from lotteryfw.runner import StudyContext
from lotteryfw.search.top_k import require_finite

PLUGIN = """
from lotteryfw import *

class Opt(Optimizer):
    "Breaks in build."
    use = "bad_optimizer"
    mode: str
    def build(self, parameters):
        import torch
        if self.mode == "raise":
            raise RuntimeError("no optimizer")
        return None

class Sco(Scope):
    "Returns no list."
    use = "bad_scope"
    def groups(self, layers, kept, times=1):
        return None

class Mod(ModelFamily):
    "Names its layers wrongly."
    use = "bad_model"
    mode: str
    def build(self, shape, classes):
        from torch import nn
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    def prunable(self, module):
        return {
            "none": None, "text": "1.weight", "twice": ["1.weight", "1.weight"], "number": [3],
        }[self.mode]

class Dat(DataSource):
    "Breaks in fingerprint."
    use = "bad_data"
    def facts(self, folder):
        return DatasetInfo((1, 4, 4), 3, 60, 30, 30)
    def load(self, folder):
        raise RuntimeError("never")
    def fingerprint(self, folder):
        raise RuntimeError("no fingerprint")

class Sea(SearchAlgorithm):
    "Records nothing."
    use = "bad_search"
    looks: bool = False
    def search(self, lab):
        trained = yield from lab.train(lab.dense())
        if self.looks and trained.metrics.test_accuracy > 2:
            lab.record(0, trained.ticket, trained)

class Ini(Initialiser):
    "Draws NaN."
    use = "bad_initialiser"
    def weight(self, layer, rng):
        import torch
        return torch.full(layer.shape, float("nan"))

class Kept(Mask1Action):
    "Divides by the mask, or by 0."
    use = "bad_kept"
    everywhere: bool = True
    def kept_values(self, layer):
        return layer.original / (0 if self.everywhere else layer.mask)

class Masked(Mask0Action):
    "Gives infinity."
    use = "bad_masked"
    def masked_values(self, layer):
        return layer.original.abs() + float("inf")

class Con(Control):
    "Gives NaN."
    use = "bad_control"
    def kept_values(self, layer):
        return layer.start * float("nan")

@hookimpl
def register_components():
    return [Opt, Sco, Mod, Dat, Sea, Ini, Kept, Masked, Con]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> list[Path]:
    (tmp_path / "mine.py").write_text(PLUGIN)
    return [tmp_path / "mine.py"]


def training(**changes: Any) -> dict[str, Any]:
    return {**recipe()["train"], **changes}


BEFORE = {
    "an optimizer that raises": (
        {"train": training(optimizer={"use": "bad_optimizer", "mode": "raise"})},
        "recipe: train.optimizer: optimizer 'mine.py/bad_optimizer' of mine.py==local",
        "broke in build(): RuntimeError: no optimizer",
    ),
    "an optimizer that is none": (
        {"train": training(optimizer={"use": "bad_optimizer", "mode": "none"})},
        "recipe: train.optimizer: optimizer 'mine.py/bad_optimizer' of mine.py==local",
        "build() returned NoneType; it must return a torch.optim.Optimizer",
    ),
    "layers that are no list": (
        {"model": {"use": "bad_model", "mode": "none"}},
        "recipe: model: model 'mine.py/bad_model' of mine.py==local",
        "prunable() returned NoneType; it must return a list of the names of parameters",
    ),
    "layers that are a text": (
        {"model": {"use": "bad_model", "mode": "text"}},
        "recipe: model: model 'mine.py/bad_model' of mine.py==local",
        "prunable() returned str; it must return a list of the names of parameters",
    ),
    "a layer named by a number": (
        {"model": {"use": "bad_model", "mode": "number"}},
        "recipe: model: model 'mine.py/bad_model' of mine.py==local",
        "prunable() named no parameter of the network: 3",
    ),
    "a layer that is named twice": (
        {"model": {"use": "bad_model", "mode": "twice"}},
        "recipe: model: model 'mine.py/bad_model' of mine.py==local",
        "prunable() named 1.weight more than once",
    ),
    "data without a fingerprint": (
        {"data": "bad_data"},
        "recipe: data: data 'bad_data' broke in fingerprint()",
        "RuntimeError: no fingerprint",
    ),
    "weights that are NaN": (
        {"initialiser": "bad_initialiser"},
        "recipe: initialiser: initialiser 'mine.py/bad_initialiser' of mine.py==local",
        "weight() on layer fc1.weight returned NaN or infinity for 128 of 128 values; all must be "
        "finite",
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_it_is_refused_before_a_run_at_the_key_of_the_component(
    case: str, tmp_path: Path, plugin: list[Path]
) -> None:
    tables, start, end = BEFORE[case]
    context = StudyContext(recipe(**tables), store=tmp_path / "store", data=tmp_path, trust=plugin)
    with pytest.raises(RecipeError) as raised:
        context.validate_models("cpu")
    (fault,) = raised.value.faults
    assert str(fault).startswith(start)
    assert str(fault).endswith(end)


def test_a_scope_that_returns_no_list_fails_its_cell(tmp_path: Path, plugin: list[Path]) -> None:
    done, watch = go(tmp_path, recipe(scope="bad_scope"), trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    (line,) = [line for line in watch.warnings if "bad_scope" in line]
    assert "scope 'mine.py/bad_scope' of mine.py==local" in line
    assert "groups() returned NoneType; it must return a list of Group" in line


NO_RECORD = "search 'mine.py/bad_search' of mine.py==local"


def test_a_search_that_records_nothing_is_refused(tmp_path: Path, plugin: list[Path]) -> None:
    context = StudyContext(
        recipe(search="bad_search"), store=tmp_path / "store", data=tmp_path, trust=plugin
    )
    ((_, reason),) = context.plan().broken
    assert reason.startswith(NO_RECORD)
    assert "ended without a `lab.record`" in reason
    with pytest.raises(RecipeError) as raised:
        context.validate_models("cpu")
    (fault,) = raised.value.faults
    assert str(fault) == f"recipe: search: {reason}"


def test_a_search_that_records_nothing_for_its_results_fails(
    tmp_path: Path, plugin: list[Path]
) -> None:
    search = {"use": "bad_search", "looks": True}
    done, watch = go(tmp_path, recipe(search=search), trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    (line,) = [line for line in watch.warnings if NO_RECORD in line]
    assert "ended without a `lab.record`" in line


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"mask1": "bad_kept"}, "mask1 'mine.py/bad_kept' of mine.py==local"),
        ({"mask0": "bad_masked"}, "mask0 'mine.py/bad_masked' of mine.py==local"),
        ({"controls": ["bad_control"]}, "control 'mine.py/bad_control' of mine.py==local"),
    ],
)
def test_values_that_are_not_finite_are_no_divergence(
    tmp_path: Path, plugin: list[Path], tables: dict[str, Any], named: str
) -> None:
    done, watch = go(tmp_path, recipe(**tables), trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    (line,) = [line for line in watch.warnings if named in line]
    assert "returned NaN or infinity for " in line


def test_values_that_no_weight_gets_may_be_anything(tmp_path: Path, plugin: list[Path]) -> None:
    table = recipe(mask1={"use": "bad_kept", "everywhere": False})
    done, _ = go(tmp_path, table, trust=plugin)
    assert list(done.statuses.values()) == ["done"]


def test_what_a_training_made_infinite_is_not_the_components_fault() -> None:
    import torch

    ended, given = torch.tensor([1.0, float("inf")]), torch.tensor([1.0, float("nan")])
    require_finite(given, "who", shown=[ended])
    with pytest.raises(ContractError, match=r"^who returned NaN or infinity for 1 of 2 values"):
        require_finite(given, "who", shown=[torch.ones(2)])
