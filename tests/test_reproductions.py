"""docs/reproductions.md is what its script makes of the stored results, and follows them."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

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
    assert headings[0] == "## All claims in one table"
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
