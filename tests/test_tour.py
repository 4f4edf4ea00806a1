"""The tour works as a new user would take it: in an empty folder, with only the wheel installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.tour import STEPS, install, take

PAGE = ROOT / "docs" / "tutorials" / "tour.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder)
    return folder


def test_the_wheel_has_the_recipes(site: Path) -> None:
    code = "import lotteryfw; print(lotteryfw.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, cwd=site, capture_output=True, text=True
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(site)
    names = {path.name for path in (site / "lotteryfw" / "recipes").glob("*.toml")}
    assert names == {path.name for path in (ROOT / "recipes").glob("*.toml")}


@pytest.mark.large
def test_the_whole_tour(site: Path, tmp_path: Path) -> None:
    page = PAGE.read_text()
    for step in STEPS:
        done = take(step, tmp_path, site)
        assert done.returncode == 0, f"{step.command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        for name in step.leaves:
            assert (tmp_path / name).stat().st_size > 0, f"{step.command} leaves no {name}"
        # figures differ between machines, and so do tables that are as wide as they are
        first = done.stdout.splitlines()[0].rstrip()
        assert output_after(page, step.command).splitlines()[0] == first, step.command


def output_after(page: str, command: str) -> str:
    match = re.search(
        r"\$ " + re.escape(command) + r"\n```\n(?:\n```text\n(.*?)```)?", page, re.DOTALL
    )
    assert match, f"docs/tutorials/tour.md does not have: {command}"
    return match[1] or ""


def test_the_page_has_every_step_in_order() -> None:
    commands = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)
    assert commands == [step.command for step in STEPS]
