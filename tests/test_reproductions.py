"""docs/reproductions.md is what its script makes of the stored results, and follows them."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from lotteryfw import UsageError, run

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_reproductions.py"))
STORED: list[Any] = SCRIPT["stored_results"]()


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    files: dict[Path, str] = SCRIPT["made_files"](STORED)
    return files


def test_the_page_and_the_verdicts_are_current(made: dict[Path, str]) -> None:
    for path, text in made.items():
        remedy = f"{path.name}: run python scripts/make_reproductions.py"
        assert path.read_text("utf-8") == text, remedy


def test_the_page_leads_with_the_table_of_claims() -> None:
    text = (ROOT / "docs" / "reproductions.md").read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## The claims in one table"
    assert "| claim | the paper | here | n | steps | verdict |" in text


def test_results_are_small_and_name_no_folder_of_the_machine_that_made_them() -> None:
    assert STORED
    for result in STORED:
        for path in result.folder.iterdir():
            assert path.stat().st_size < 2_000_000, path
        manifest = (result.folder / "manifest.json").read_text("utf-8")
        assert '"store"' not in manifest
        assert '"recipe"' not in manifest


def test_other_rows_make_other_verdicts(tmp_path: Path) -> None:
    result = next(one for one in STORED if one.folder.name == "quickstart")
    copy = tmp_path / "quickstart"
    shutil.copytree(result.folder, copy)
    rows = (copy / "levels.csv").read_text("utf-8")
    # exchange what was kept: then the claims are the wrong way round
    swapped = rows.replace("large_final", "@").replace("random", "large_final")
    (copy / "levels.csv").write_text(swapped.replace("@", "random"), "utf-8")
    changed = SCRIPT["Result"](copy)
    assert result.verdicts[0].outcome == "supported"
    assert changed.verdicts[0].outcome == "contradicted"


def test_a_claim_without_numbers_has_dashes(made: dict[Path, str]) -> None:
    rows = list(SCRIPT["lead_rows"](STORED))
    without = [verdict for verdict in rows if not verdict.numbers]
    assert without, "a short run has claims that it cannot test"
    for text in (SCRIPT["lead_table"](without), made[SCRIPT["PAGE"]]):
        assert "| – | – | – | **not tested**: " in text


def test_a_result_of_some_studies_is_judged_by_the_claims_about_them() -> None:
    result = next(one for one in STORED if one.about.get("studies"))
    judged = {side.study for one in result.verdicts for side in one.claim.sides().values()}
    assert judged == set(result.about["studies"])
    assert len(result.verdicts) < len(result.recipe.claims)


SHORT = ["train.length=2it", "evaluate.points=1", "search.levels=1", "model.hidden=[4]"]


def kept(name: str, runs: list[Path], *, seeds: str = "[0,1]", add: bool = False) -> Path:
    sets = [f"--set {change}" for change in (*SHORT, f"seeds={seeds}")]
    command = " ".join(["lotteryfw recipe recipes/quickstart.toml", *sets])
    SCRIPT["keep"](name, runs, command, "", add=add)
    folder: Path = SCRIPT["keep"].__globals__["RESULTS"] / name
    return folder


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The quickstart with two seeds in one run, and with one seed a run."""
    folder = tmp_path_factory.mktemp("parts")
    folders = {}
    for name, seeds in {"both": [0, 1], "first": [0], "second": [1]}.items():
        folders[name] = folder / name
        run(
            ROOT / "recipes" / "quickstart.toml", sets=[*SHORT, f"seeds={seeds}"],
            out=folders[name], store=folder / f"store-{name}", jobs=1, report=False, quiet=True,
        )  # fmt: skip
    return folders


def test_runs_of_one_seed_each_are_kept_as_the_run_of_all_seeds(
    run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT["keep"].__globals__, "RESULTS", tmp_path)
    together = kept("together", [run_folders["both"]])
    at_once = kept("at once", [run_folders["first"], run_folders["second"]])
    kept("one by one", [run_folders["first"]], seeds="[0]")
    one_by_one = kept("one by one", [run_folders["second"]], add=True)

    for joined in (at_once, one_by_one):
        rows = (joined / "levels.csv").read_text("utf-8").splitlines()
        assert sorted(rows) == sorted((together / "levels.csv").read_text("utf-8").splitlines())
        assert (joined / "resolved.toml").read_text() == (together / "resolved.toml").read_text()
        verdicts = [one.numbers for one in SCRIPT["Result"](joined).verdicts]
        assert verdicts == [one.numbers for one in SCRIPT["Result"](together).verdicts]
        manifest = SCRIPT["Result"](joined).data.manifest
        assert manifest["seeds"] == [0, 1]
        assert [part["seeds"] for part in manifest["parts"]] == [[0], [1]]


def test_every_result_has_the_cells_of_its_command() -> None:
    for result in STORED:
        assert result.data.manifest["cells"].keys() == {cell.id for cell in result.recipe.cells}


def test_a_run_that_has_not_finished_is_not_kept(
    run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT["keep"].__globals__, "RESULTS", tmp_path)
    message = r"differ in 4 cells, such as quickstart/criterion=large_final/seed=1: finish the runs"
    with pytest.raises(UsageError, match=message):
        kept("half", [run_folders["first"]])
    assert not list(tmp_path.iterdir())


def test_runs_that_share_a_cell_or_differ_in_more_than_seeds_are_not_joined(
    run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT["keep"].__globals__, "RESULTS", tmp_path)
    with pytest.raises(UsageError, match="two runs have the cell quickstart/criterion=large_final"):
        kept("twice", [run_folders["both"], run_folders["first"]])

    longer = tmp_path / "longer"
    shutil.copytree(run_folders["second"], longer)
    text = (longer / "resolved.toml").read_text("utf-8").replace('"2it"', '"3it"')
    (longer / "resolved.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError, match="their recipes differ in more than their seeds"):
        kept("longer", [run_folders["first"], longer])
    assert not (tmp_path / "longer" / "result.toml").exists()
