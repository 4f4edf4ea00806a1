"""Run folders repair themselves: damage is found, said in one line and rebuilt; nothing stale stays."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import Watch, files, go, recipe
from typer.testing import CliRunner

from lotteryfw import UsageError
from lotteryfw.api.errors import StoreError
from lotteryfw.cli import runs as runs  # adds the command `lotteryfw runs`
from lotteryfw.cli.app import app
from lotteryfw.report import report
from lotteryfw.runner import Run
from lotteryfw.runner import run_study as run_recipe
from lotteryfw.store import RunFolder
from lotteryfw.store.checksums import UNDER_WAY

TABLE = recipe(analyses=["mask_diagnostics"], controls=["random_mask"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    go(folder, TABLE)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A finished run and its store, to damage."""
    for name in ("run", "store"):
        shutil.copytree(finished / name, tmp_path / name)
    return tmp_path


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).write_bytes(change((path / name).read_bytes()))

    return damage


def delete(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def altered(text: bytes) -> bytes:
    """Another accuracy in the first row."""
    return text.replace(b",0.", b",0.9", 1)


def foreign_row(text: bytes) -> bytes:
    """A row of a cell that the recipe does not have."""
    return text + text.splitlines(keepends=True)[1].replace(b"seed=0", b"seed=7")


def wrong_level(text: bytes) -> bytes:
    """A row of level 9, of which there is none."""
    *before, last = text.splitlines(keepends=True)
    return b"".join([*before, last, last.replace(b"random_mask,0,2", b"random_mask,0,9")])


TICKET = "tickets/small__seed=0/level-01.safetensors"
DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "row altered": ("levels.csv", edit("levels.csv", altered)),
    "foreign row": ("levels.csv", edit("levels.csv", foreign_row)),
    "wrong level": ("levels.csv", edit("levels.csv", wrong_level)),
    "levels truncated": ("levels.csv", edit("levels.csv", lambda text: text[:-30])),
    "levels missing": ("levels.csv", delete("levels.csv")),
    "levels not UTF-8": ("levels.csv", edit("levels.csv", lambda text: b"\xff\xfe" + text)),
    "curves truncated": ("curves.jsonl", edit("curves.jsonl", lambda text: text[:-30])),
    "findings of another shape": (
        "analyses.jsonl",
        edit("analyses.jsonl", lambda text: b"[1]\n" + text),
    ),
    "manifest not JSON": ("manifest.json", edit("manifest.json", lambda text: b"\xff{")),
    "manifest nested too deeply": (
        "manifest.json",
        edit("manifest.json", lambda text: b"[" * 100_000 + b"]" * 100_000),
    ),
    "findings nested too deeply": (
        "analyses.jsonl",
        edit("analyses.jsonl", lambda text: b"[" * 100_000 + b"]" * 100_000 + b"\n" + text),
    ),
    "resolved altered": ("resolved.toml", edit("resolved.toml", lambda text: text + b"# mine\n")),
    "resolved missing": ("resolved.toml", delete("resolved.toml")),
    "ticket truncated": (TICKET, edit(TICKET, lambda text: text[:50])),
    "ticket missing": (TICKET, delete(TICKET)),
    "checksums not JSON": ("checksums.json", edit("checksums.json", lambda text: text[:-9])),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_said_in_one_line_and_rebuilt(folder: Path, case: str) -> None:
    name, damage = DAMAGE[case]
    before = files(folder / "run") | {
        "resolved.toml": (folder / "run" / "resolved.toml").read_bytes()
    }
    damage(folder / "run")
    _, watch = go(folder, TABLE)
    assert not watch.trained
    assert [line for line in watch.warnings if name in line and "rebuilt" in line], watch.warnings
    assert len(watch.warnings) == 1
    assert "\n" not in watch.warnings[0]
    assert (
        files(folder / "run") | {"resolved.toml": (folder / "run" / "resolved.toml").read_bytes()}
        == before
    )
    _, again = go(folder, TABLE)
    assert not again.warnings


@pytest.mark.parametrize(
    "case", ["row altered", "levels missing", "manifest not JSON", "ticket missing"]
)
def test_a_report_of_a_damaged_folder_says_what_is_damaged_and_what_to_do(
    folder: Path, case: str
) -> None:
    name, damage = DAMAGE[case]
    damage(folder / "run")
    with pytest.raises(StoreError, match=rf"damaged: {name}.*run the recipe again: it rebuilds"):
        report(folder / "run")


def test_the_checksums_are_those_of_the_files(folder: Path) -> None:
    import hashlib

    recorded = json.loads((folder / "run" / "checksums.json").read_text())["files"]
    tables = {
        "levels.csv",
        "curves.jsonl",
        "analyses.jsonl",
        "manifest.json",
        "recipe.toml",
        "resolved.toml",
    }
    tickets = {
        path.relative_to(folder / "run").as_posix()
        for path in (folder / "run" / "tickets").rglob("*.*")
    }
    assert recorded.keys() == tables | tickets
    for name, digest in recorded.items():
        assert hashlib.sha256((folder / "run" / name).read_bytes()).hexdigest() == digest
    assert not (folder / "run" / UNDER_WAY).exists()


def test_a_table_newer_than_the_checksums_after_a_kill_is_no_damage(folder: Path) -> None:
    before = files(folder / "run")
    levels = folder / "run" / "levels.csv"
    levels.write_bytes(b"".join(levels.read_bytes().splitlines(keepends=True)[:-1]))
    (folder / "run" / UNDER_WAY).touch()
    assert report(folder / "run")
    _, watch = go(folder, TABLE)
    assert not watch.warnings
    assert files(folder / "run") == before


def test_what_cannot_come_from_a_kill_is_said_even_after_one(folder: Path) -> None:
    (folder / "run" / UNDER_WAY).touch()
    (folder / "run" / "levels.csv").write_bytes(b"\xff")
    _, watch = go(folder, TABLE)
    assert "levels.csv" in watch.warnings[0]


def test_a_stale_ticket_and_stale_rows_go_when_the_study_has_ended(folder: Path) -> None:
    """As an earlier version of a plugin may have left them: in order by their checksums."""
    import hashlib

    path = folder / "run"
    stale = path / "tickets" / "small__seed=0" / "level-09.safetensors"
    shutil.copy(path / TICKET, stale)
    edit("levels.csv", wrong_level)(path)
    recorded = json.loads((path / "checksums.json").read_text())
    for file in (stale, path / "levels.csv"):
        recorded["files"][file.relative_to(path).as_posix()] = hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
    (path / "checksums.json").write_text(json.dumps(recorded))
    done, watch = go(folder, TABLE)
    assert not watch.warnings
    assert not stale.exists()
    assert {row.level for row in done.levels} == {0, 1, 2}


def test_the_leftovers_of_a_run_are_reopened_and_other_files_are_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "errors").mkdir(parents=True)
    (out / "errors" / "001.txt").write_text("Traceback")
    (out / "tickets").mkdir()
    (out / "events.jsonl").write_text("")
    (out / "workers.log").write_text("")
    done, _ = go(tmp_path)
    assert set(done.statuses.values()) == {"done"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "events.jsonl").write_text("")
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not a run's"):
        go(tmp_path, name="other")


@pytest.mark.parametrize(("jobs", "kind"), [(1, "LevelFinished"), (2, "RunStarted")])
def test_a_folder_deleted_during_the_run_is_made_again(
    tmp_path: Path, jobs: int, kind: str
) -> None:
    """A worker is started after RunStarted alone, since one is enough for one cell."""
    whole, _ = go(tmp_path, name="whole")
    watch = Watch()

    def event(event: Any) -> None:
        if type(event).__name__ == kind and getattr(event, "level", 1) == 1:
            shutil.rmtree(tmp_path / "run")

    watch.event = event  # type: ignore[method-assign]
    run_recipe(recipe(), out=tmp_path / "run", store=tmp_path / "b", jobs=jobs, device="cpu", data=tmp_path,
               listener=watch)  # fmt: skip
    again, second = go(tmp_path, store=tmp_path / "b")
    assert not second.trained
    assert files(again.path) == files(whole.path)


def test_one_folder_with_two_stores_runs_once_at_a_time(tmp_path: Path) -> None:
    watch, inside, refused = Watch(), threading.Event(), []

    def event(event: Any) -> None:
        if type(event).__name__ == "LevelFinished" and not inside.is_set():
            inside.set()
            with pytest.raises(StoreError, match="under way in another process") as caught:
                go(tmp_path, store=tmp_path / "second")
            refused.append(caught)

    watch.event = event  # type: ignore[method-assign]
    run_recipe(recipe(), out=tmp_path / "run", store=tmp_path / "first", jobs=1, device="cpu", data=tmp_path,
               listener=watch)  # fmt: skip
    assert refused
    assert set(Run(tmp_path / "run").statuses.values()) == {"done"}


def test_a_finished_study_run_again_appends_only_that_it_began_and_ended(folder: Path) -> None:
    before = RunFolder(folder / "run").read_events()
    _, watch = go(folder, TABLE)
    after = RunFolder(folder / "run").read_events()
    assert len(watch.of("LevelFinished")) == 5  # whoever listens is told everything
    assert after[: len(before)] == before
    assert [event["event"] for event in after[len(before) :]] == ["run_started", "run_finished"]


def listed(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """What `lotteryfw runs` prints of the runs in a folder, as text and as JSON."""
    text = CliRunner().invoke(app, ["runs", str(folder)], catch_exceptions=False)
    lines = CliRunner().invoke(app, ["runs", str(folder), "--json"], catch_exceptions=False)
    assert (text.exit_code, lines.exit_code) == (0, 0)
    assert ("damaged" in text.output) == ("warning" in lines.stderr)
    return text.output, [json.loads(line) for line in lines.stdout.splitlines()]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (edit("manifest.json", lambda text: text[: len(text) // 2]), "manifest.json"),
        (edit("levels.csv", lambda text: b"\xff" + text), "levels.csv"),
        (delete("levels.csv"), "levels.csv (missing)"),
        (edit("checksums.json", lambda text: b"{"), "checksums.json (unreadable)"),
    ],
)
def test_the_list_of_runs_says_which_are_damaged_and_shows_the_others(
    folder: Path, damage: Callable[[Path], None], what: str, killed: bool
) -> None:
    shutil.copytree(folder / "run", folder / "sound")
    damage(folder / "run")
    if killed:
        (folder / "run" / UNDER_WAY).touch()
    text, (bad, good) = listed(folder)
    assert f"damaged: {what}" in text
    assert "run the recipe again" in text
    assert text.count("5; 1 done") == 1
    assert bad["run"] == str(folder / "run")
    assert bad["damaged"].startswith(what)
    assert (good["run"], good["rows"]) == (str(folder / "sound"), 5)
    assert good["cells"] == {"done": 1}


def test_a_manifest_that_says_something_else_is_damaged(folder: Path) -> None:
    assert "1 done" in listed(folder)[0]
    edit("manifest.json", lambda text: text.replace(b'"done"', b'"failed"'))(folder / "run")
    text, (line,) = listed(folder)
    assert "failed" not in text
    assert "damaged: manifest.json (changed)" in text
    assert line == {"run": str(folder / "run"), "damaged": "manifest.json (changed)"}


def test_a_run_under_way_is_listed_as_far_as_it_is(folder: Path) -> None:
    (folder / "run" / UNDER_WAY).touch()
    edit("manifest.json", lambda text: text.replace(b'"done"', b'"failed"'))(folder / "run")
    assert "1 failed" in listed(folder)[0]
