"""A run's manifest says when, by which command, from which code and on which machine it ran."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from support.commands import QUICK, cli
from support.runs import go, recipe

from lotteryfw.runner import provenance
from lotteryfw.runner.provenance import MOST_INVOCATIONS, Invocation, git_state, listed


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *settings, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "tiny.toml")
    git(tmp_path, "commit", "-q", "-m", "A recipe")
    return tmp_path


def test_the_manifest_lists_every_invocation_of_the_command_line(repository: Path) -> None:
    words = ("recipe", "tiny.toml", "--quiet", "--jobs", "1", "--set", "search.levels=1")
    for _ in range(2):
        done = cli(repository, *words, "--out", "run")
        assert done.returncode == 0, done.stderr
    manifest = json.loads((repository / "run" / "manifest.json").read_text())
    first, second = manifest["invocations"]
    assert (first["computed"], second["computed"]) == (4, 0)
    assert first["seconds"] > 0
    assert datetime.fromisoformat(first["date"]).utcoffset() is not None
    assert first["overrides"] == ["search.levels=1"]
    assert "recipe tiny.toml --quiet --jobs 1 --set search.levels=1 --out run" in first["command"]
    assert first["git"] == {"commit": git(repository, "rev-parse", "HEAD"), "clean": True}
    assert first["machine"]["cores"] >= 1
    assert first["machine"]["device"] == "cpu"
    assert first["versions"] == manifest["versions"]
    assert "python" in first["versions"]

    page = (repository / "run" / "report.html").read_text()
    assert "<h2>Provenance</h2>" in page
    assert f"{first['git']['commit'][:12]}, clean" in page
    assert str(repository) not in page.replace("\n", "")


def test_a_repository_is_clean_only_with_a_tracked_and_unchanged_recipe(repository: Path) -> None:
    recipe_file = repository / "tiny.toml"
    new = repository / "new.toml"
    new.write_text("")
    commit = git(repository, "rev-parse", "HEAD")
    # files that are not sources, such as run folders, change nothing
    assert git_state([recipe_file]) == {"commit": commit, "clean": True}
    assert git_state([new]) == {"commit": commit, "clean": False}
    assert git_state([recipe_file, new]) == {"commit": commit, "clean": False}
    recipe_file.write_text("changed")
    assert git_state([recipe_file]) == {"commit": commit, "clean": False}


def test_without_a_repository_or_without_git_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state([tmp_path / "tiny.toml"]) is None
    monkeypatch.setenv("PATH", "")
    assert git_state([]) is None


def test_a_run_from_python_has_its_command_too(tmp_path: Path) -> None:
    done, _ = go(tmp_path, recipe(search={"use": "imp", "levels": 1}))
    [invocation] = done.manifest["invocations"]
    assert invocation["overrides"] == []
    # under pytest-xdist the process is a Python that reads what to do
    assert "python" in invocation["command"]


def test_an_installed_command_is_listed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/opt/bin/python", "/opt/bin/lotteryfw", "plan", "a b"])
    assert provenance.command_line() == "lotteryfw plan 'a b'"
    monkeypatch.setattr(sys, "orig_argv", ["/opt/bin/python3", "study.py", "--fast"])
    assert provenance.command_line() == "python3 study.py --fast"


def test_a_long_list_of_invocations_keeps_the_first_and_the_latest() -> None:
    earlier = [{"date": str(number)} for number in range(MOST_INVOCATIONS)]
    lines = listed(earlier, Invocation([], [], "cpu"))
    assert len(lines) == MOST_INVOCATIONS
    assert [lines[0], lines[1]] == [{"date": "0"}, {"date": "2"}]
    assert lines[-1]["computed"] == 0
