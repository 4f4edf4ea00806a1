"""Components as options of components: built by name, keyed with their code, and used by searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recipes import changed
from typer.testing import CliRunner

from lotteryfw import LotteryError, load_ticket, run
from lotteryfw.cli.app import app
from lotteryfw.recipe import json_schema
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.toml_writer import to_toml
from lotteryfw.registry import Registry
from lotteryfw.testkit import trial

PLUGIN = '''
from typing import Annotated

from pydantic import Field

from lotteryfw import (
    Analysis, AnalysisResult, DataSource, Dataset, MaskCriterion, Need, NetworkCriterion, SearchAlgorithm, Subset, hookimpl,
)


class Ensemble(MaskCriterion):
    """Adds the ranks that several criteria give a weight."""

    use = "ensemble"
    members: Annotated[list[MaskCriterion], Field(min_length=1)]

    def score(self, layer):
        total = 0
        for member in self.members:
            total = total + member.score(layer).flatten().argsort().argsort().double().reshape(layer.info.shape)
        return total


class Powered(MaskCriterion):
    """Raises the scores of another criterion to a power."""

    use = "powered"
    inner: MaskCriterion
    power: float = 2.0

    def score(self, layer):
        return self.inner.score(layer) ** self.power


class Sensitivity(MaskCriterion):
    """Keeps weights of large gradient."""

    use = "sensitivity"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer):
        return layer.gradient.abs()


class WholeNetwork(NetworkCriterion):
    """Keeps large weights, as a whole network sees them."""

    use = "whole_network"

    def scores(self, probe):
        return {name: weight.abs() for name, weight in probe.weights.items()}


class Alternate(SearchAlgorithm):
    """Prunes by two criteria in turn."""

    use = "alternate"
    first: MaskCriterion
    second: MaskCriterion
    levels: int = 2

    def search(self, lab):
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record(0, ticket, trained)
        for level in range(1, self.levels + 1):
            criterion = self.first if level % 2 else self.second
            ticket = lab.prune(ticket, trained, criterion=criterion)
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)


class Noisy(DataSource):
    """Adds noise to the training images of another data set."""

    use = "noisy"
    clean: DataSource
    noise: float = 0.5

    def facts(self, folder):
        return self.clean.facts(folder)

    def files(self, folder):
        return self.clean.files(folder)

    def load(self, folder):
        import torch

        whole = self.clean.load(folder)
        rng = torch.Generator().manual_seed(0)
        noise = self.noise * torch.randn(whole.train.inputs.shape, generator=rng)
        return Dataset(Subset(whole.train.inputs + noise, whole.train.labels), whole.validation, whole.test)


class GradientNorm(Analysis):
    """Measures the gradient at the end of each training."""

    use = "gradient_norm"
    needs = frozenset({Need.GRADIENT})

    def levels(self, lab, levels):
        results = []
        for level in levels:
            trained = yield from lab.probe(level.trained)
            for name, gradient in trained.gradient.items():
                results.append(AnalysisResult(level, "gradient_norm", float(gradient.norm()), layer=name))
        return results


@hookimpl
def register_components():
    return [Ensemble, Powered, Sensitivity, WholeNetwork, Alternate, Noisy, GradientNorm]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "nest.py"
    file.write_text(PLUGIN)
    return file


def small(**changes: Any) -> dict[str, Any]:
    return changed(seeds=[0], **changes)


def study(folder: Path, plugin: Path, **changes: Any) -> Any:
    done = run(
        small(**changes), out=folder / "run", store=folder.parent / "store", trust=[plugin], jobs=1
    )
    assert set(done.statuses.values()) == {"done"}
    return done


def masks(done: Any, level: int) -> dict[str, torch.Tensor]:
    (path,) = (done.path / "tickets").rglob(f"level-{level:02}.safetensors")
    return dict(load_ticket(path).mask)


def test_an_ensemble_of_criteria_prunes_by_all_of_them(tmp_path: Path, plugin: Path) -> None:
    search = {"use": "imp", "levels": 1}
    alone = study(tmp_path / "a", plugin, search=search, criterion="movement")
    single = {"use": "ensemble", "members": ["movement"]}
    assert_equal_masks(
        masks(study(tmp_path / "b", plugin, search=search, criterion=single), 1), masks(alone, 1)
    )
    both = {
        "use": "ensemble",
        "members": ["movement", {"use": "powered", "inner": "small_final", "power": 3}],
    }
    mixed = masks(study(tmp_path / "c", plugin, search=search, criterion=both), 1)
    assert any(not torch.equal(mask, masks(alone, 1)[name]) for name, mask in mixed.items())


def assert_equal_masks(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, mask in one.items():
        assert torch.equal(mask, other[name]), name


def test_a_search_prunes_by_two_criteria_in_turn(tmp_path: Path, plugin: Path) -> None:
    """Each level has the mask of the search that has this criterion alone, from the same training."""
    turns = {"use": "alternate", "first": "large_final", "second": "small_final"}
    done = study(tmp_path / "turns", plugin, search=turns)
    large = study(tmp_path / "large", plugin, search={"use": "imp", "levels": 2})
    assert_equal_masks(masks(done, 1), masks(large, 1))
    before, after = masks(done, 1), masks(done, 2)
    other = masks(large, 2)
    for name, mask in after.items():
        assert not (mask & ~before[name]).any()
        # small weights stay where large ones would
        assert int(mask.sum()) == int(other[name].sum())
        kept_by_either = mask | other[name]
        assert int(kept_by_either.sum()) > int(mask.sum())


def test_a_nested_criterion_gets_the_gradient_that_it_needs(tmp_path: Path, plugin: Path) -> None:
    search = {"use": "imp", "levels": 1}
    alone = study(tmp_path / "a", plugin, search=search, criterion="sensitivity")
    inner = {"use": "powered", "inner": "sensitivity"}
    assert_equal_masks(
        masks(study(tmp_path / "b", plugin, search=search, criterion=inner), 1), masks(alone, 1)
    )
    turns = {"use": "alternate", "first": "sensitivity", "second": "sensitivity", "levels": 1}
    assert_equal_masks(masks(study(tmp_path / "c", plugin, search=turns), 1), masks(alone, 1))


def test_a_criterion_of_whole_networks_is_refused_inside_another_component(
    tmp_path: Path, plugin: Path
) -> None:
    inner = {"use": "powered", "inner": "whole_network"}
    with pytest.raises(LotteryError, match=r"recipe: criterion: .*'whole_network' scores whole"):
        study(tmp_path / "a", plugin, criterion=inner)
    search = {"use": "alternate", "first": "whole_network", "second": "movement"}
    with pytest.raises(LotteryError, match=r"recipe: search: .*'whole_network' scores whole"):
        study(tmp_path / "a", plugin, search=search)


def test_wrapped_data_is_trained_on(tmp_path: Path, plugin: Path) -> None:
    plain = small()["data"]
    clean = study(tmp_path / "a", plugin, search={"use": "imp", "levels": 0})
    none = {"use": "noisy", "clean": plain, "noise": 0.0}
    same = study(tmp_path / "b", plugin, search={"use": "imp", "levels": 0}, data=none)
    assert same.levels[0].test_loss == clean.levels[0].test_loss
    much = {"use": "noisy", "clean": plain, "noise": 5.0}
    noisy = study(tmp_path / "c", plugin, search={"use": "imp", "levels": 0}, data=much)
    assert noisy.levels[0].test_loss > clean.levels[0].test_loss


def test_an_analysis_asks_for_the_gradients_that_it_needs(tmp_path: Path, plugin: Path) -> None:
    done = study(
        tmp_path / "a", plugin, search={"use": "imp", "levels": 1}, analyses=["gradient_norm"]
    )
    found = {(row.level, row.layer): row.value for row in done.findings}
    assert {level for level, _ in found} == {0, 1}
    assert all(value > 0 for value in found.values())
    # the criterion's own gradient is the same job
    probes = list((tmp_path / "store").rglob("outcome.json"))
    study(
        tmp_path / "b",
        plugin,
        search={"use": "imp", "levels": 1},
        criterion="large_final",
        analyses=["gradient_norm"],
    )
    assert len(list((tmp_path / "store").rglob("outcome.json"))) == len(probes)


def test_the_code_of_a_nested_component_is_part_of_the_key(tmp_path: Path, plugin: Path) -> None:
    registry = Registry.load([plugin])
    component = registry.create("criterion", {"use": "powered", "inner": "movement"})
    options = registry.options_for_job(component, None)
    provider = registry.find("criterion", "movement").provider
    assert options == {"inner": {"use": "lotteryfw/movement", "from": provider}, "power": 2.0}
    own = registry.offer_of(component).provider
    assert registry.from_job("criterion", "powered", own, options) == component
    other = {"inner": {"use": "lotteryfw/movement", "from": "lotteryfw==9"}, "power": 2.0}
    with pytest.raises(
        LotteryError, match=r"'lotteryfw/movement' is here from .*; the job needs lotteryfw==9"
    ):
        registry.from_job("criterion", "powered", own, other)


def test_a_resolved_recipe_gives_the_same_components(tmp_path: Path, plugin: Path) -> None:
    resolver = ComponentResolver(Registry.load([plugin]), tmp_path)
    entry = {"use": "ensemble", "members": ["movement", {"use": "powered", "inner": "small_final"}]}
    component, problems = resolver.component("criterion", entry)
    assert component is not None
    assert not problems
    for written in (resolver.full(component), resolver.entry(component)):
        assert resolver.component("criterion", json.loads(json.dumps(written)))[0] == component
    assert resolver.label(component) == "ensemble(members=[movement, powered(inner=small_final)])"


POWR = {"use": "powered", "inner": {"use": "powered", "inner": "random", "powr": 3}}
TEXT = {
    "use": "ensemble",
    "members": ["movement", {"use": "powered", "inner": "random", "power": "x"}],
}


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ({"use": "powered", "inner": "movment"}, r"criterion.inner: there is no criterion 'movment'; did you mean 'movement'"),
        ({"use": "powered", "inner": "zero"}, r"criterion.inner: 'zero' is not a criterion, it is a mask-0 action"),
        ({"use": "powered"}, r"criterion.inner: is required"),
        ({"use": "powered", "inner": "powered"}, r"criterion.inner.inner: is required"),
        (POWR, r"criterion.inner.powr: the criterion 'powered' has no option 'powr'.*did you mean 'power'"),
        (TEXT, r"criterion.members\[1\].power: must be a number, got 'x'"),
        ({"use": "ensemble", "members": []}, r"criterion.members: must be at least 1 long"),
    ],
)  # fmt: skip
def test_faults_of_nested_components_name_file_and_key(
    criterion: Any, message: str, tmp_path: Path, plugin: Path
) -> None:
    file = tmp_path / "study.toml"
    file.write_text(to_toml(small(criterion=criterion)))
    with pytest.raises(LotteryError, match=f"study.toml: {message}"):
        run(file, out=tmp_path / "run", store=tmp_path / "store", trust=[plugin], jobs=1)


def test_a_trial_gives_an_option_that_is_a_component_the_default_of_its_kind(plugin: Path) -> None:
    registry = Registry.load([plugin])
    trial(registry.find("criterion", "powered").cls)
    trial(registry.find("criterion", "ensemble").cls, {"members": ["movement", "random"]})
    # what an inner criterion and an analysis need is shown to them
    sensitivity = registry.find("criterion", "sensitivity").cls()
    trial(registry.find("criterion", "ensemble").cls, {"members": ["movement", sensitivity]})
    trial(registry.find("analysis", "gradient_norm").cls)
    trial(registry.find("search", "alternate").cls, {"first": "movement", "second": "small_final"})


def test_show_and_schema_know_that_an_option_is_a_component(plugin: Path) -> None:
    result = CliRunner().invoke(app, ["show", "powered", "--trust", str(plugin)])
    assert result.exit_code == 0, result.output
    assert "component: criterion" in result.output
    definitions = json_schema(Registry.load([plugin]))["$defs"]
    tables = {table.get("title"): table for table in definitions["criterion"]["oneOf"]}
    reference = tables["powered"]["properties"]["inner"]["$ref"].rpartition("/")[2]
    assert definitions[reference] == {"$ref": "#/$defs/criterion"}
