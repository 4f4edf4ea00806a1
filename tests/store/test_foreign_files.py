"""`store gc` and `store verify` change nothing that lotteryfw did not write."""

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lotteryfw.api.errors import UsageError
from lotteryfw.cli.app import app
from lotteryfw.store import Store, files

KEY = "ab" * 32

FOREIGN = [
    "scratch/myproject/data.txt",
    "scratch/hf/checkpoint-500/model.bin",
    "scratch/hf/checkpoint-500/object.json",
    "objects/ab/abstract/file",
    "objects/AB/" + "AB" * 32 + "/file",
    "aliases/ab/abstract",
    "spool/model.safetensors",
    "spool/a-b-c.safetensors",
    "locks/poetry.lock",
    "active/uv.lock",
    "tmp/2024-results-final/file",
    "tmp/1-1-1",
    ".2024-draft-two.tmp",
]
"""Files in folders of a store's names, none of which a store would name so."""


def written(root: Path, places: list[str]) -> list[Path]:
    """The files, all of them older than what `gc` takes for given up."""
    old = time.time() - 30 * 24 * 3600
    paths = [root / place for place in places]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not lotteryfw's")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (old, old))
    return paths


def tree(root: Path) -> set[tuple[str, float]]:
    return {(str(path), path.stat().st_mtime) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [["verify"], ["gc"], ["gc", "--dry-run"], ["gc", "--force"]])
@pytest.mark.parametrize("places", [["thesis.tex"], FOREIGN[:4], FOREIGN[:1], [".git/config"]])
def test_a_folder_that_is_no_store_is_refused_and_stays_as_it_is(tmp_path, command, places):
    written(tmp_path, places)
    before = tree(tmp_path)
    result = CliRunner().invoke(app, ["store", *command, "--store", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "no store.json" in str(result.exception)
    assert "is not lotteryfw's" in str(result.exception)
    assert tree(tmp_path) == before


def test_an_empty_folder_and_a_store_that_lost_its_store_json_are_cleaned(tmp_path):
    assert Store(tmp_path / "absent").gc().objects == 0
    assert not (tmp_path / "absent").exists()
    (tmp_path / "empty").mkdir()
    assert Store(tmp_path / "empty").verify().checked == 0
    assert Store(tmp_path / "empty").gc().objects == 0
    store = Store(tmp_path / "store")
    with store.write(KEY) as folder:
        (folder / "weights.bin").write_bytes(b"weights")
    (store.root / f".{files.own_name()}.tmp").write_text("{")
    (store.root / "store.json").unlink()
    assert Store(store.root).verify().checked == 1
    assert Store(store.root).gc().objects == 1


def test_in_a_store_only_what_it_names_itself_is_deleted_or_moved(tmp_path):
    store = Store(tmp_path)
    with store.write(KEY) as folder:
        (folder / "weights.bin").write_bytes(b"weights")
    store.set_alias(KEY, KEY)
    with store.lock("cd" * 32):
        pass
    foreign = written(tmp_path, FOREIGN)
    report = store.verify()
    assert (report.checked, report.aliases, report.checkpoints, report.spooled) == (1, 1, 0, 0)
    assert (report.damaged, report.problems) == ((), ())
    for path in ("scratch/hf", "objects/ab/abstract", "aliases/ab/abstract", "spool/a-b-c"):
        assert any(str(tmp_path / path) in remark for remark in report.remarks)
    swept = store.gc()
    assert (swept.objects, swept.aliases, swept.leftovers, swept.locks) == (1, 1, 0, 1)
    assert [path for path in foreign if not path.is_file()] == []


def test_gc_deletes_no_lock_file_of_another_program(tmp_path):
    """A lock file of lotteryfw is empty; one with content is another program's."""
    store = Store(tmp_path)
    with store.active("run"):
        pass
    assert store.gc(dry_run=True).locks == 1
    (tmp_path / "active" / "run.lock").write_text("4711")
    assert store.gc().locks == 0
    assert (tmp_path / "active" / "run.lock").exists()
