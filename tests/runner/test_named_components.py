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

class Obj(Objective):
    "Breaks, or returns no loss."
    use = "bad_objective"
    mode: str
    def loss(self, outputs, inputs, labels, reduction):
        if self.mode == "raise":
            return self.helper()
        plain = outputs.square().sum()
        return {
            "shape": outputs, "none": None, "float": 1.0, "constant": plain.detach(),
        }.get(self.mode, plain)
    def helper(self):
        raise RuntimeError("no loss")
    def correct(self, outputs, inputs, labels):
        return {"correct": None, "total": labels.sum()}.get(self.mode, outputs.argmax(1) == labels)

class Wrong(Objective):
    "Gives torch's own loss something that it refuses."
    use = "bad_classes"
    def loss(self, outputs, inputs, labels, reduction):
        from torch import nn
        return nn.CrossEntropyLoss(reduction=reduction)(outputs, labels.float())
    def correct(self, outputs, inputs, labels):
        return outputs.argmax(1) == labels

class Sch(Schedule):
    "Breaks, or returns no number."
    use = "bad_schedule"
    mode: str
    def factor(self, step, clock):
        if self.mode == "raise":
            raise RuntimeError("no factor")
        return {"none": None, "nan": float("nan"), "text": "x"}[self.mode]

class Aug(Augmentation):
    "Breaks, or returns other images."
    use = "bad_augmentation"
    mode: str
    def apply(self, images, rng):
        if self.mode == "raise":
            raise RuntimeError("no images")
        return {"none": None, "shape": images[:, :, :2], "dtype": images.double()}[self.mode]

class Net(ModelFamily):
    "Breaks in training alone."
    use = "bad_network"
    mode: str
    def build(self, shape, classes):
        from torch import nn
        mode = self.mode
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(16, classes)
            def forward(self, x):
                outputs = self.fc(x.flatten(1))
                if not self.training:
                    return outputs
                if mode == "raise":
                    raise RuntimeError("no outputs")
                return outputs.detach() if mode == "constant" else None
        return Network()

class Step(Optimizer):
    "Breaks in its step."
    use = "bad_step"
    def build(self, parameters):
        import torch
        class Own(torch.optim.SGD):
            def step(self, closure=None):
                raise RuntimeError("no step")
        return Own(parameters.values(), lr=0.1)

class Leaves(MaskCriterion):
    "Calls sys.exit."
    use = "bad_criterion"
    def score(self, layer):
        raise SystemExit(3)

@hookimpl
def register_components():
    return [
        Opt, Sco, Mod, Dat, Sea, Ini, Kept, Masked, Con, Obj, Wrong, Sch, Aug, Net, Step, Leaves
    ]
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


def used(kind: str, name: str, **options: Any) -> tuple[dict[str, Any], str]:
    """The part of a recipe that uses a component of the plugin, and how messages begin."""
    kind_in_messages = {"augment": "augmentation"}.get(kind, kind)
    entry: Any = {"use": name, **options}
    tables = {
        "objective": {"train": training(objective=entry)},
        "model": {"model": entry},
        "schedule": {"train": training(schedule=entry)},
        "augment": {"train": training(augment=[entry])},
        "optimizer": {"train": training(optimizer=entry)},
    }[kind]
    return tables, f"{kind_in_messages} 'mine.py/{name}' of mine.py==local"


def objective(mode: str) -> tuple[dict[str, Any], str]:
    return used("objective", "bad_objective", mode=mode)


def schedule(mode: str) -> tuple[dict[str, Any], str]:
    return used("schedule", "bad_schedule", mode=mode)


def augmentation(mode: str) -> tuple[dict[str, Any], str]:
    return used("augment", "bad_augmentation", mode=mode)


def network(mode: str) -> tuple[dict[str, Any], str]:
    return used("model", "bad_network", mode=mode)


LOSS = "it must return a 0-d floating-point tensor, the mean or sum over the batch"
IN_TRAINING = [
    (objective("raise"), "broke in loss(): RuntimeError: no loss"),
    (objective("none"), f"loss() returned NoneType; {LOSS}"),
    (objective("float"), f"loss() returned float; {LOSS}"),
    (objective("shape"), f"loss() returned a torch.float32 tensor of shape [66, 3]; {LOSS}"),
    (objective("constant"), "loss() returned a value without a gradient"),
    (objective("correct"), "correct() returned NoneType; it must return a tensor of shape [66]"),
    (objective("total"), "correct() returned a torch.int64 tensor of shape []"),
    (used("objective", "bad_classes"), "broke in loss(): RuntimeError: "),
    (schedule("raise"), "broke in factor(): RuntimeError: no factor"),
    (schedule("none"), "factor() returned None for step 0; it must return a finite number"),
    (schedule("nan"), "factor() returned nan for step 0; it must return a finite number"),
    (schedule("text"), "factor() returned 'x' for step 0; it must return a finite number"),
    (augmentation("raise"), "broke in apply(): RuntimeError: no images"),
    (augmentation("none"), "apply() or transform() returned NoneType for a torch.float32 tensor"),
    (augmentation("shape"), "tensor of shape [16, 1, 2, 4] for a torch.float32 tensor of shape"),
    (augmentation("dtype"), "returned a torch.float64 tensor of shape [16, 1, 4, 4] for a torch."),
    (network("raise"), "broke in forward(): RuntimeError: no outputs"),
    (network("none"), "forward() returned NoneType in training; it must return a tensor"),
    (network("constant"), "the outputs in training have no gradient"),
    (used("optimizer", "bad_step"), "broke in step(): RuntimeError: no step"),
]


@pytest.mark.parametrize(("case", "problem"), IN_TRAINING)
def test_what_breaks_in_a_training_is_named(
    tmp_path: Path, plugin: list[Path], case: tuple[dict[str, Any], str], problem: str
) -> None:
    tables, named = case
    done, watch = go(tmp_path, recipe(**tables), trust=plugin)
    assert list(done.statuses.values()) == ["failed"]
    (line,) = [line for line in watch.warnings if named in line]
    assert problem in line
    assert "Traceback" in "".join(path.read_text() for path in (done.path / "errors").iterdir())


def test_a_worker_process_names_it_too(tmp_path: Path, plugin: list[Path]) -> None:
    tables, named = objective("raise")
    _, watch = go(tmp_path, recipe(**tables), trust=plugin, jobs=2)
    assert any(named in line and "broke in loss()" in line for line in watch.warnings)


def test_sys_exit_of_a_criterion_names_the_distribution(tmp_path: Path, plugin: list[Path]) -> None:
    _, watch = go(tmp_path, recipe(criterion="bad_criterion"), trust=plugin)
    (line,) = [line for line in watch.warnings if "sys.exit(3)" in line]
    assert "criterion 'bad_criterion' of mine.py==local" in line
    assert "in score() called sys.exit(3)" in line
