"""The output that pages show is what commands print.

Accuracies differ from machine to machine in their last digits, and take a minute to compute. So a run
of the quickstart with trainings of a few steps is compared, and accuracies are left out.
"""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from itertools import chain
from pathlib import Path

import pytest
from support.paths import ROOT

import lotteryfw
from lotteryfw.cli.plans import plan
from lotteryfw.report import report

SHORT = "train.length=4it"
TUTORIAL = ROOT / "docs" / "tutorials" / "first-ticket.md"
TABLE = re.compile(r"^quickstart: test accuracy.*\n\n weights remaining.*\n.*\n(?: .*\n)+", re.M)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quickstart with all its cells, in a folder with a store of its own."""
    folder = tmp_path_factory.mktemp("output")
    store = folder / "store"
    run = lotteryfw.run(
        ROOT / "recipes" / "quickstart.toml", sets=[SHORT], out=folder / "run", store=store, jobs=1
    )
    return run.path


@pytest.fixture(scope="module")
def printed(short_run: Path) -> str:
    """What the command line prints of the run, 100 columns wide."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setenv("COLUMNS", "100")
        report(short_run, show=True)
    return out.getvalue()


def tables(text: str) -> list[str]:
    """Return the lines of the tables of accuracies, without these and with single spaces."""
    lines = []
    # rich pads lines with spaces
    text = re.sub(r" +$", "", text, flags=re.M)
    for table in TABLE.findall(text):
        for line in table.splitlines():
            words = re.sub(r"\d+\.\d+ ± \d+\.\d+", "#", line).replace("─", "").split()
            if words:
                lines.append(" ".join(words))
    return lines


@pytest.mark.parametrize("page", [ROOT / "README.md", TUTORIAL], ids=lambda page: page.stem)
def test_pages_show_the_tables_that_the_quickstart_prints(page: Path, printed: str) -> None:
    assert len(tables(printed)) == 12, "two tables: a title, a header and four criteria each"
    assert tables(page.read_text("utf-8")) == tables(printed)


def test_the_readme_shows_the_claims_of_the_quickstart(printed: str) -> None:
    shown = (ROOT / "README.md").read_text("utf-8").partition("<!-- /demo -->")[0]

    def claims(text: str) -> str:
        rows = re.findall(r"^[│┃](.*)[│┃]$", text, re.M)
        # the second column is the claim; the others are of the run, and decide where lines end
        words = [re.split("[│┃]", row)[1].split() for row in rows]
        return " ".join(chain.from_iterable(words))

    assert claims(shown) == claims(printed) != ""


def test_the_tutorial_shows_what_plan_prints(
    short_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = TUTORIAL.read_text("utf-8")
    (command,) = re.findall(r"^\$ lotteryfw plan (.*)$", page, re.M)
    (shown,) = re.findall(r"^```text\n(quickstart\n  cells.*?)^```$", page, re.M | re.S)
    file, _, setting = shlex.split(command)
    plan(ROOT / file, sets=[setting, SHORT], store=short_run.parent / "store")
    assert shown.endswith("\n  …\n")
    assert capsys.readouterr().out.startswith(shown.removesuffix("  …\n"))
