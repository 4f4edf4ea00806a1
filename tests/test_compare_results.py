"""The recipes of scripts/compare_results.py use every built-in, and `compare` sees differences."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "compare_results.py"
    spec = importlib.util.spec_from_file_location("compare_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of one recipe that has controls, analyses and two variants."""
    folder = tmp_path_factory.mktemp("record")
    assert script.record(folder, jobs=1, only=["edge_popup"]) == 0
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def written(folder: Path, results: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_every_built_in_component_is_in_a_recipe_or_is_named(script: ModuleType) -> None:
    recipes = script.read_recipes()
    script.check_coverage(recipes)
    del recipes["mask0"], recipes["mask0_at_step"]
    with pytest.raises(SystemExit, match="mask0 init_zero_reverse"):
        script.check_coverage(recipes)


def test_equal_records_have_no_differences(
    script: ModuleType,
    recorded: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = written(tmp_path / "a", recorded), written(tmp_path / "b", recorded)
    assert script.compare(a, b) == 0
    assert capsys.readouterr().out.startswith("compared 32 rows, 32 tickets, 32 curves, ")


@pytest.mark.parametrize("part", ["rows", "tickets", "curves", "findings"])
def test_one_value_that_differs_and_one_entry_that_is_gone_are_reported(
    script: ModuleType,
    recorded: dict[str, Any],
    part: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed = copy.deepcopy(recorded)
    entries = changed["recipes"]["edge_popup"][part]
    first, second = list(entries)[:2]
    name = list(entries[first])[-1]
    entries[first][name] = "another"
    del entries[second]
    assert script.compare(written(tmp_path / "a", recorded), written(tmp_path / "b", changed)) == 1
    out = capsys.readouterr().out
    assert f"edge_popup, {part}: {first}: {name}: " in out
    assert f"edge_popup, {part}: only in the first: {second}\n" in out
    assert out.endswith(": 2 differences\n")
