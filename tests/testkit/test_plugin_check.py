"""`check_plugin` tries every component of a plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotteryfw.api.errors import PluginError, UsageError
from lotteryfw.testkit import check_plugin

PLUGIN = """
from lotteryfw import MaskCriterion, hookimpl

class Good(MaskCriterion):
    "Keeps the large."
    use = "good"
    def score(self, layer):
        return layer.final.abs()

class Bad(MaskCriterion):
    "Keeps nothing sensible."
    use = "bad"
    def score(self, layer):
        return layer.final[0]

class Asking(MaskCriterion):
    "Keeps the large."
    use = "asking"
    power: float
    def score(self, layer):
        return layer.final.abs()

@hookimpl
def register_components():
    return [Good, Bad, Asking]
"""


def test_check_plugin_tells_which_component_broke_and_why(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    verdicts = {verdict.component.name: verdict for verdict in check_plugin(str(file))}
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {
        "good": "passed", "bad": "failed", "asking": "skipped"
    }  # fmt: skip
    assert str(verdicts["good"]) == "passed: criterion mine.py/good"
    assert (
        "failed: criterion mine.py/bad: criterion 'bad': score() on a linear layer returned shape"
        in str(verdicts["bad"])
    )
    assert "options without a default: power" in str(verdicts["asking"])
    assert [verdict.failed for verdict in verdicts.values()].count(True) == 1


def test_check_plugin_says_when_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lotteryfv'.*did you mean 'lotteryfw'"):
        check_plugin("lotteryfv")
    with pytest.raises(UsageError, match="there is no plugin file"):
        check_plugin(str(tmp_path / "absent.py"))
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    with pytest.raises(PluginError, match="nowhere_to_be_found"):
        check_plugin(str(tmp_path / "broken.py"))


WRONG = """
from lotteryfw import MaskCriterion, hookimpl
from pydantic import ConfigDict, field_validator

class Validates(MaskCriterion):
    "Keeps the large."
    use = "validates"
    power: float = 1.0
    @field_validator("power")
    @classmethod
    def check(cls, value):
        return {}[value]
    def score(self, layer):
        return layer.final.abs()

class Rebuilds(MaskCriterion):
    "Keeps the large."
    use = "rebuilds"
    power: float | None = None
    @field_validator("power")
    @classmethod
    def check(cls, value):
        return {}[value]
    def score(self, layer):
        return layer.final.abs()

class Ends(MaskCriterion):
    "Keeps the large."
    use = "ends"
    def score(self, layer):
        raise SystemExit(0)

class Allows(MaskCriterion):
    "Keeps the large."
    use = "allows"
    model_config = ConfigDict(extra="allow")
    def score(self, layer):
        return layer.final.abs()

class Idles(MaskCriterion):
    "Keeps the large."
    use = "idles"
    def idle_options(self):
        return {}["x"]
    def score(self, layer):
        return layer.final.abs()

class Misnames(Idles):
    "Keeps the large."
    use = "misnames"
    def idle_options(self):
        return {"x": "it is not there"}

@hookimpl
def register_components():
    return [Validates, Rebuilds, Ends, Allows, Idles, Misnames]
"""


def test_each_component_has_its_own_verdict_whatever_one_of_them_does(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        WRONG.replace(
            "power: float = 1.0", "power: float = Field(1.0, validate_default=True)"
        ).replace("ConfigDict,", "ConfigDict, Field,")
    )
    reasons = {verdict.component.name: str(verdict) for verdict in check_plugin(str(file))}
    assert all(reason.startswith("failed: ") for reason in reasons.values()), reasons
    assert "its options could not be checked: KeyError: 1.0" in reasons["validates"]
    assert "it cannot be built again from its own options as plain data: " in reasons["rebuilds"]
    assert "score() on a linear layer raised SystemExit: 0" in reasons["ends"]
    assert "it accepts options that it does not have, misspelt ones too; leave" in reasons["allows"]
    assert "idle_options() on its options raised KeyError: 'x'" in reasons["idles"]
    assert "idle_options() on its options names ['x'], of which it has none" in reasons["misnames"]


RESULTS = """
from lotteryfw import Analysis, DataError, DataSource, Scope, SearchAlgorithm, UsageError, hookimpl

class Breaking(Analysis):
    "Breaks after its first request."
    use = "breaking"
    def levels(self, lab, levels):
        yield from ()
        return {}["x"]

class Nothing(Analysis):
    "Returns nothing."
    use = "nothing"
    def across(self, levels):
        return None

class Generated(Scope):
    "Breaks while its budgets are read."
    use = "generated"
    def groups(self, layers, kept, times):
        return BudgetsThatBreak()

class BudgetsThatBreak(list):
    def __iter__(self):
        raise SystemExit(3)

class Impossible(SearchAlgorithm):
    "Asks its lab for what that cannot do."
    use = "impossible"
    def search(self, lab):
        trained = yield from lab.train(lab.dense())
        raise UsageError("the lab refused")

class Absent(DataSource):
    "Reads a file that is not here."
    use = "absent"
    def facts(self, folder):
        raise DataError("its file is not here")
    def load(self, folder):
        raise DataError("its file is not here")

@hookimpl
def register_components():
    return [Breaking, Nothing, Generated, Impossible, Absent]
"""


def test_what_breaks_in_the_results_of_a_component_is_its_own_failure(tmp_path: Path) -> None:
    file = tmp_path / "results.py"
    file.write_text(RESULTS)
    reasons = {verdict.component.name: str(verdict) for verdict in check_plugin(str(file))}
    assert "skipped: data results.py/absent: its file is not here" in reasons.pop("absent")
    assert all(reason.startswith("failed: ") for reason in reasons.values()), reasons
    assert "analysis 'breaking': its trial ended with KeyError: 'x'" in reasons["breaking"]
    assert "analysis 'nothing': its trial ended with TypeError" in reasons["nothing"]
    assert "scope 'generated': its trial ended with SystemExit: 3" in reasons["generated"]
    assert "the lab refused" in reasons["impossible"]


def test_check_plugin_takes_a_packages_file_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    file = tmp_path / "pkg" / "__init__.py"
    file.write_text(PLUGIN)
    assert [verdict.component.name for verdict in check_plugin(str(file))] == [
        "asking", "bad", "good"
    ]  # fmt: skip


def test_a_file_without_components_is_called_that(tmp_path: Path) -> None:
    file = tmp_path / "functions.py"
    file.write_text("def network():\n    return None\n")
    with pytest.raises(UsageError, match=r"functions\.py: has no components to try; its functions"):
        check_plugin(str(file))
