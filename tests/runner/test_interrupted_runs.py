"""What a run folder says of a run that was stopped: which cells ended, and by which code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.runs import Watch, files, recipe

from lotteryfw.api.errors import UsageError
from lotteryfw.runner import Interrupted, Run
from lotteryfw.runner import run_study as run
from lotteryfw.store import ticket_name

CELLS = recipe(grid={"train.batch": [16, 11, 10]})
"""Three cells that are not trained together, so that one ends before the others."""


class Stopping(Watch):
    """A listener that asks the run to stop at the end of a cell."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.stops: list[Any] = []
        self._cells = cells

    def event(self, event: Any) -> None:
        super().event(event)
        name = "CellFinished" if self._cells else "RunStarted"
        if type(event).__name__ == name and len(self.of("CellFinished")) == self._cells:
            self.stops[0]()


def go(folder: Path, table: Any, stop_after: int | None = None, **given: Any) -> Run:
    """Run a recipe, and stop it after so many cells."""
    given = {
        "out": folder / "run", "store": folder / "store", "jobs": 1, "device": "cpu",
        "data": folder, **given,
    }  # fmt: skip
    if stop_after is None:
        return run(table, **given)
    watch = Stopping(stop_after)
    with pytest.raises(Interrupted):
        run(table, listener=watch, on_start=watch.stops.append, **given)
    return Run(given["out"])


def test_a_stopped_run_lists_every_cell_and_which_have_not_ended(tmp_path: Path) -> None:
    stopped = go(tmp_path, CELLS, stop_after=1)
    cells = [f"small/train.batch={batch}/seed=0" for batch in (16, 11, 10)]
    assert list(stopped.statuses) == cells
    assert sorted(stopped.statuses.values()) == ["done", "unfinished", "unfinished"]
    assert "1 done, 2 unfinished" in stopped._repr_html_()
    whole = go(tmp_path, CELLS)
    assert whole.statuses == dict.fromkeys(cells, "done")


def test_a_rerun_that_is_stopped_early_keeps_what_ended_before(tmp_path: Path) -> None:
    whole = go(tmp_path, CELLS)
    before = files(whole.path)
    again = go(tmp_path, CELLS, stop_after=0)
    assert set(again.statuses.values()) == {"done"}
    assert files(again.path) == before


def test_the_manifest_names_the_store_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = go(tmp_path, recipe(), store=Path("here/store"))
    assert done.manifest["store"] == str(tmp_path / "here" / "store")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_wrong_heartbeat_is_refused_before_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setenv("LOTTERYFW_HEARTBEAT", "soon")
    with pytest.raises(UsageError, match="LOTTERYFW_HEARTBEAT"):
        go(tmp_path, CELLS, jobs=jobs)
    assert not (tmp_path / "run").exists()


PLUGIN = """
from lotteryfw import MaskCriterion, hookimpl

class Signed(MaskCriterion):
    "Keep large or small final weights."
    use = "signed"
    def score(self, layer):
        {check}
        return {sign} * layer.final.abs()

@hookimpl
def register_components():
    return [Signed]
"""
BREAKS = "assert layer.mask.float().mean() > 0.9, 'level 2'"
SIGNED = CELLS | {"criterion": "signed"}


def plugin(folder: Path, sign: int, check: str = "pass") -> Path:
    path = folder / "signed_plugin.py"
    path.write_text(PLUGIN.format(sign=sign, check=check))
    return path


def pruned_keys(done: Run) -> set[str]:
    """The keys of trained tickets: that of the dense network is the same whatever the criterion."""
    return {row.key for row in done.levels if row.level > 0}


def test_no_table_has_results_of_two_states_of_a_plugin(tmp_path: Path) -> None:
    old = go(tmp_path, SIGNED, trust=[plugin(tmp_path, 1)])
    old_keys, old_files = pruned_keys(old), files(old.path)
    changed = [plugin(tmp_path, -1)]

    # stopped before the first level, nothing of the earlier run is lost
    same = go(tmp_path, SIGNED, stop_after=0, trust=changed)
    assert files(same.path) == old_files
    assert set(same.statuses.values()) == {"done"}

    mixed = go(tmp_path, SIGNED, stop_after=1, trust=changed)
    assert sorted(mixed.statuses.values()) == ["done", "unfinished", "unfinished"]
    assert pruned_keys(mixed)
    assert not pruned_keys(mixed) & old_keys
    rows = {(row.cell, row.level) for row in mixed.levels}
    assert {(curve.cell, curve.level) for curve in mixed.curves} == rows

    whole = go(tmp_path, SIGNED, trust=changed)
    fresh = go(tmp_path, SIGNED, trust=changed, out=tmp_path / "fresh")
    assert files(whole.path) == files(fresh.path)


def test_a_cell_that_fails_with_changed_code_keeps_nothing_of_the_old(tmp_path: Path) -> None:
    old = go(tmp_path, SIGNED, trust=[plugin(tmp_path, 1)])
    old_keys = pruned_keys(old)
    failed = go(tmp_path, SIGNED, trust=[plugin(tmp_path, -1, BREAKS)])
    assert set(failed.statuses.values()) == {"failed"}
    assert {row.level for row in failed.levels} == {0, 1}
    assert not pruned_keys(failed) & old_keys
    assert {path.stem for path in (failed.path / "tickets").rglob("level-*")} == {
        "level-00",
        "level-01",
    }


BREAKS_ON_REQUEST = "import os; assert 'BREAK' not in os.environ or layer.mask.float().mean() > 0.9"


def test_no_ticket_of_old_code_outlives_a_run_that_was_stopped(tmp_path: Path) -> None:
    """The stopped run recorded nothing of the cells that fail afterwards."""
    old = go(tmp_path, SIGNED, trust=[plugin(tmp_path, 1, BREAKS_ON_REQUEST)])
    # as a run that is killed leaves it
    unsealed = old.path / "tickets" / "small__train.batch=10__seed=0" / "level-07.safetensors"
    unsealed.write_bytes(b"")
    changed = [plugin(tmp_path, -1, BREAKS_ON_REQUEST)]
    go(tmp_path, SIGNED, stop_after=1, trust=changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREAK", "1")
        failed = go(tmp_path, SIGNED, trust=changed, store=tmp_path / "other")
    assert set(failed.statuses.values()) == {"failed"}
    rows = {ticket_name(row.cell, row.variant, row.level) for row in failed.levels}
    tickets = failed.path / "tickets"
    names = {path.relative_to(tickets).with_suffix("").as_posix() for path in tickets.glob("*/*")}
    assert names == rows
    assert len(rows) == 3 + 2 + 2


def test_tickets_of_old_code_are_deleted_after_the_checksums_name_them_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in between leaves a folder of which nothing is missing."""
    old = go(tmp_path, SIGNED, trust=[plugin(tmp_path, 1)])
    deleted: list[str] = []
    named: list[str] = []

    def look(paths: Iterable[Path]) -> None:
        deleted.extend(path.relative_to(old.path).as_posix() for path in paths if path.exists())
        named.extend(json.loads((old.path / "checksums.json").read_text())["files"])

    monkeypatch.setattr("lotteryfw.runner.recorder.delete_files", look)
    go(tmp_path, SIGNED, stop_after=1, trust=[plugin(tmp_path, -1)])
    assert deleted
    assert not set(named) & set(deleted)


def test_a_run_keeps_the_id_of_its_folder_and_pins_by_it(tmp_path: Path) -> None:
    ids = [go(tmp_path, CELLS, stop_after=1).manifest["id"], go(tmp_path, CELLS).manifest["id"]]
    (root,) = (tmp_path / "store" / "roots").glob("*.json")
    assert [json.loads(root.read_text())["id"]] * 2 == ids
    assert go(tmp_path, CELLS, out=tmp_path / "another").manifest["id"] not in ids


def test_a_cell_that_fails_with_the_same_code_keeps_what_it_had(tmp_path: Path) -> None:
    trust = [plugin(tmp_path, 1, BREAKS_ON_REQUEST)]
    before = files(go(tmp_path, SIGNED, trust=trust).path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREAK", "1")
        failed = go(tmp_path, SIGNED, trust=trust, store=tmp_path / "other")
    assert set(failed.statuses.values()) == {"failed"}
    assert files(failed.path) == before


def test_rows_of_a_manifest_without_states_give_way_to_the_first_new_one(tmp_path: Path) -> None:
    """As runs of earlier versions have it."""
    done = go(tmp_path, CELLS)
    before = files(done.path)
    manifest = done.manifest
    del manifest["cell_states"]
    done.folder.write_manifest(manifest)
    (done.path / "checksums.json").write_text(
        json.dumps(
            {"files": {path: sha256(done.path / path) for path in (*before, "manifest.json")}}
        )
    )
    assert files(go(tmp_path, CELLS, stop_after=0).path) == before
    assert {row.cell for row in go(tmp_path, CELLS).levels} == set(done.statuses)
    assert files(done.path) == before
    assert set(done.manifest["cell_states"]) == set(done.statuses)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
