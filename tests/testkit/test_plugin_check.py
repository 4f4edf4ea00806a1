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
