"""Whole studies on a store that is damaged, killed over, full of leftovers, or may only be read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.runs import files, go, recipe

from lotteryfw.api.errors import StoreError
from lotteryfw.runner import scheduler, workers
from lotteryfw.search.jobs import digest
from lotteryfw.store import Store, check_seal
from lotteryfw.store import files as store_files
from lotteryfw.store.file_locks import try_lock


def flip(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


CONTROLS = ["untrained", "reinit", "random_mask", "random_mask_reinit"]


@pytest.mark.parametrize(
    ("changes", "tickets"),
    [
        (
            {"controls": CONTROLS, "rewind": {"use": "to_step", "step": "5it"}},
            1 + 2 * (1 + len(CONTROLS)),
        ),
        (
            {
                "search": {"use": "edge_popup", "density": 0.5, "train_weights": True},
                "parametrization": "top_k",
            },
            2,
        ),
    ],
    ids=["pruned", "learned"],
)
def test_the_store_of_a_whole_study_is_sound_and_every_key_is_computed_again(
    tmp_path: Path, changes: Any, tickets: int
) -> None:
    go(tmp_path, recipe(**changes))
    store = Store(tmp_path / "store")
    report = store.verify()
    assert (report.damaged, report.problems) == ((), ())
    assert report.tickets >= tickets
    for key in store.all_keys():
        description = check_seal(store.path(key), key)
        assert digest(description["source"]) == key
    assert not list(store.root.glob("locks/*"))
    assert not list(store.root.glob("scratch/*"))


def test_two_swapped_objects_do_not_exchange_the_figures_of_two_criteria(tmp_path: Path) -> None:
    table = recipe(
        grid={"criterion": ["large_final", "small_final"]}, search={"use": "imp", "levels": 1}
    )
    before, _ = go(tmp_path, table)
    expected = files(before.path)
    one, two = [row.key for row in before.levels if row.level == 1]
    paths = [tmp_path / "store" / "objects" / key[:2] / key for key in (one, two)]
    paths[0].rename(tmp_path / "aside")
    paths[1].rename(paths[0])
    (tmp_path / "aside").rename(paths[1])
    after, watch = go(tmp_path, table)
    assert files(after.path) == expected
    assert sorted(watch.trained) == sorted([one, two])
    assert sum("damaged object" in trouble for trouble in watch.warnings) == 2


def test_a_job_that_is_damaged_on_its_way_to_a_worker_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = go(tmp_path, name="one", store=tmp_path / "one-store")
    real, damaged = workers.spool, []

    def spool(job: Any, store: Store) -> str:
        name: str = real(job, store)
        if not damaged:
            damaged.append(name)
            flip(store.spooled(name))
        return name

    monkeypatch.setattr(workers, "spool", spool)
    ours, watch = go(tmp_path, jobs=2)
    assert len(damaged) == 1
    assert set(ours.statuses.values()) == {"done"}
    assert files(ours.path) == files(expected.path)
    assert ["was made again" in trouble for trouble in watch.warnings] == [True]
    assert not list((tmp_path / "store" / "spool").iterdir())


def test_a_job_that_is_damaged_while_it_waits_fails_its_cell_and_the_same_command_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = recipe(controls=["reinit"])
    real = scheduler.spool

    def spool(job: Any, store: Store) -> str:
        name: str = real(job, store)
        flip(store.spooled(name))
        return name

    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "spool", spool)
        ours, watch = go(tmp_path, table)
    assert set(ours.statuses.values()) == {"failed"}
    assert any(
        "is damaged" in trouble and "run the same command again" in trouble
        for trouble in watch.warnings
    )
    ours, watch = go(tmp_path, table)
    assert set(ours.statuses.values()) == {"done"}
    assert watch.warnings == []
    expected, _ = go(tmp_path, table, name="other", store=tmp_path / "other-store")
    assert files(ours.path) == files(expected.path)


def test_what_a_killed_run_spooled_is_gone_after_the_next_one(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from support.runs import go, recipe
table = recipe(seeds=[0, 1])
table["train"]["length"] = "200000it"
go(Path({str(tmp_path)!r}), table, jobs=2)
"""
    runner = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    spooled: list[Path] = []
    end = time.monotonic() + 120
    while len(spooled) < 2 and time.monotonic() < end and runner.poll() is None:
        time.sleep(0.05)
        spooled = list((tmp_path / "store").glob("spool/*.safetensors"))
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert len(spooled) == 2
    store = Store(tmp_path / "store")
    (run_id,) = (path.stem for path in store.root.glob("active/*"))
    with store.active("another"):
        assert all(path.exists() for path in spooled)
    with store.active(run_id):
        assert not list(store.root.glob("spool/*"))
    assert "deleted 2 jobs" in store.notices[0]


def test_a_lock_that_outlives_its_killed_holder_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """As when a run is killed while a worker of it starts: the worker has the lock until then."""
    store = Store(tmp_path / "store")
    with store.active("run"):
        (lock,) = store.root.glob("active/*.lock")
    descriptor = os.open(lock, os.O_RDWR)
    assert try_lock(descriptor)
    heir = subprocess.Popen(["sleep", "0.5"], pass_fds=[descriptor])
    os.close(descriptor)
    try:
        assert heir.poll() is None
        with store.active("run"):
            assert heir.wait() == 0
    finally:
        heir.kill()


def test_a_finished_run_is_served_by_a_store_that_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = go(tmp_path)
    expected = files(before.path)
    root = tmp_path / "store"
    content = sorted(root.rglob("*"))

    def refuse(path: Any) -> None:
        if Path(path).is_relative_to(root):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    real_mkdir, real_open = os.mkdir, os.open

    def mkdir(path: Any, *arguments: Any, **options: Any) -> None:
        refuse(path)
        real_mkdir(path, *arguments, **options)

    def open_file(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_RDWR | os.O_CREAT) and isinstance(path, str | Path):
            refuse(path)
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(
        store_files.os, "replace", lambda one, two: (refuse(two), os.rename(one, two))
    )
    after, watch = go(tmp_path, name="again")
    assert files(after.path) == expected
    assert watch.trained == []
    assert ["may only be read" in trouble for trouble in watch.warnings] == [True]
    with pytest.raises(StoreError, match=r"may only be read .*--store or LOTTERYFW_STORE"):
        go(tmp_path, recipe(seeds=[1]), name="new")
    with pytest.raises(StoreError, match=r"may only be read .*--store or LOTTERYFW_STORE"):
        go(tmp_path, recipe(seeds=[1]), name="new", jobs=2)
    assert sorted(root.rglob("*")) == content
