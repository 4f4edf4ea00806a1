"""The store gives no wrong result silently: bound keys, locks, read-only stores, `verify`, `gc`."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.small import cell, dense_job, engine_context, execute_one, lab
from typer.testing import CliRunner

from lotteryfw.api.errors import StoreError
from lotteryfw.cli import stores as stores  # adds the commands of `lotteryfw store`
from lotteryfw.cli.app import app
from lotteryfw.engine import StoredOutcome, spool
from lotteryfw.engine.checkpoint import Checkpoints
from lotteryfw.search.jobs import digest
from lotteryfw.store import Busy, RunFolder, Store, locks, save_ticket
from lotteryfw.store.locks import delete_lock, hold, is_held
from lotteryfw.store.run_removal import remove_run, run_files

SOURCES = [{"job": "Train", "lr": 0.1}, {"job": "Train", "lr": 0.2}]
ONE, TWO = (digest(source) for source in SOURCES)
ALIAS = digest("a derivation")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, key: str, content: bytes = b"weights") -> Path:
    source = dict(zip((ONE, TWO), SOURCES, strict=True)).get(key)
    with store.write(key, "training", source) as folder:
        (folder / "weights.bin").write_bytes(content)
    path = store.path(key)
    assert path is not None
    return path


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def flip(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


# Keys


def test_swapped_objects_are_noticed_on_read_and_by_verify(store):
    one, two = put(store, ONE, b"1"), put(store, TWO, b"2")
    swap(one, two)
    fresh = Store(store.root)
    assert fresh.path(ONE) is None
    assert fresh.damaged == [ONE]
    assert (
        f"it was written as {TWO}"
        in (store.root / "damaged" / f"{ONE}-1" / "damage.txt").read_text()
    )
    assert Store(store.root).verify().damaged == (TWO,)


def test_an_object_under_a_key_that_is_not_that_of_its_work_is_noticed(store):
    path = put(store, ONE)
    description = json.loads((path / "object.json").read_text())
    del description["sha256"]
    description["source"]["lr"] = 0.3
    description["sha256"] = digest(description)
    (path / "object.json").write_text(json.dumps(description))
    assert store.verify().damaged == (ONE,)
    with (
        pytest.raises(ValueError, match="is not the digest of"),
        store.write(ONE, "training", SOURCES[1]),
    ):
        pass


@pytest.mark.parametrize("place", range(10, 400, 30))
def test_a_flipped_bit_in_the_description_is_damage(store, place):
    flip(put(store, ONE) / "object.json", place)
    assert Store(store.root).path(ONE) is None


def test_an_object_of_another_kind_is_not_handed_out(store):
    put(store, ONE)
    assert store.path(ONE, "training")
    assert store.path(ONE, "state") is None
    assert store.damaged == [ONE]


@pytest.mark.parametrize("how", ["copied", "swapped", "flipped", "bare key"])
def test_an_alias_of_another_derivation_is_dropped_with_a_notice(store, how):
    store.set_alias("digest1", ONE)
    store.set_alias("digest2", TWO)
    one, two = (store.root / "aliases" / "di" / f"digest{number}" for number in (1, 2))
    if how == "copied":
        shutil.copy(two, one)
    elif how == "swapped":
        swap(one, two)
    elif how == "flipped":
        flip(one, one.read_text().index(ONE) + 5)
    else:
        one.write_text(ONE)
    assert store.alias("digest1") is None
    assert not one.exists()
    (notice,) = store.notices
    assert str(one) in notice
    store.set_alias("digest1", ONE)
    assert Store(store.root).alias("digest1") == ONE


# Locks


def test_the_lock_file_of_a_finished_key_goes(store):
    with store.lock(ONE):
        assert list(store.root.glob("locks/*"))
    assert list(store.root.glob("locks/*"))  # its work was not done: the next one may wait for it
    with store.lock(ONE):
        put(store, ONE)
    assert not list(store.root.glob("locks/*"))


def test_a_lock_whose_file_was_deleted_before_it_was_got_is_taken_anew(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    real, deleted = locks.try_lock, []

    def late(file: int) -> bool:
        # only the first time
        if not deleted:
            deleted.append(file)
            path.unlink()  # the holder before us deletes it between our opening and our locking
        return real(file)

    monkeypatch.setattr(locks, "try_lock", late)
    with hold(path, timeout=0):
        assert path.exists()
        with pytest.raises(Busy), hold(path, timeout=0):
            pass


def test_processes_that_delete_the_lock_they_hold_are_never_two_at_once(tmp_path):
    code = """
import sys
from pathlib import Path
from lotteryfw.store import locks
locks._POLL_SECONDS = 0.0
folder = Path(sys.argv[1])
inside = folder / "inside"
for _ in range(300):
    with locks.hold(folder / "a.lock", obsolete=lambda: True):
        inside.mkdir()  # fails where somebody else is inside
        inside.rmdir()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_held_lock_is_not_deleted(tmp_path):
    path = tmp_path / "a.lock"
    assert not is_held(path)
    assert not path.exists()
    with hold(path):
        delete_lock(path)
        assert path.exists()
        assert is_held(path)
    delete_lock(path)
    assert not path.exists()


def test_gc_deletes_lock_files(store):
    for key in (ONE, TWO):
        with store.lock(key):
            pass
    assert store.gc(dry_run=True).locks == 2
    assert store.gc().locks == 2
    assert not list(store.root.glob("locks/*"))


# Spooled jobs


def test_a_run_that_starts_again_deletes_what_its_killed_process_spooled_and_nothing_else(store):
    job = dense_job(cell(5))
    with store.active("other"):
        theirs = spool(job, store)
    killed = Store(store.root)
    with killed.active("run"):
        ours = [spool(job, killed), spool(job, killed)]
    assert all(store.spooled(name).exists() for name in ours)
    again = Store(store.root)
    with again.active("run"):
        assert list(store.root.glob("spool/*")) == [store.spooled(theirs)]
        assert again.notices == [
            f"deleted 2 jobs that a killed process of this run had left in {store.root / 'spool'}"
        ]
    assert store.gc(dry_run=True).leftovers == 1
    assert store.gc().leftovers == 1
    assert not list(store.root.glob("spool/*"))


# Verify


def finished_run(store: Store, folder: Path) -> tuple[Path, str]:
    """A run folder with the ticket of one training that is in the store."""
    desk = lab(cell(5))
    ticket = desk.dense()
    job = desk.job(ticket)
    execute_one(job, store, engine_context(), lambda done, of: False)
    path = folder / "tickets" / "cell" / "level-00.safetensors"
    save_ticket(path, ticket, {"key": job.key})
    (folder / "levels.csv").write_text("figures\n")
    store.pin("run", folder, [job.key])
    return path, job.key


def write_checksums(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    sums = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    (folder / "checksums.json").write_text(json.dumps({"files": sums}))


def test_verify_counts_what_it_checks_and_a_sound_store_has_no_problems(store, tmp_path):
    _, key = finished_run(store, tmp_path / "run")
    write_checksums(tmp_path / "run")
    store.set_alias(ALIAS, key)
    spool(dense_job(cell(5)), store)
    Checkpoints(store.scratch(ONE), ONE, 0).save({"a": torch.ones(3)}, {"step": 3})
    report = store.verify()
    assert (report.checked, report.aliases, report.checkpoints, report.spooled) == (1, 1, 1, 1)
    assert (report.runs, report.run_files, report.tickets) == (1, 2, 1)
    assert (report.damaged, report.problems, report.remarks) == ((), (), ())
    assert Store(store.root).verify() == report


def test_verify_finds_a_flipped_bit_everywhere(store, tmp_path):
    _, key = finished_run(store, tmp_path / "run")
    write_checksums(tmp_path / "run")
    store.set_alias(ALIAS, key)
    name = spool(dense_job(cell(5)), store)
    checkpoints = Checkpoints(store.scratch(ONE), ONE, 0)
    for step in (3, 4):
        checkpoints.save({"a": torch.ones(3)}, {"step": step})
    victims = [
        store.root / "aliases" / ALIAS[:2] / ALIAS,
        store.scratch(ONE) / "checkpoint-4" / "tensors.safetensors",
        store.spooled(name),
        tmp_path / "run" / "levels.csv",
    ]
    for victim in victims:
        flip(victim, 0 if victim.name == "levels.csv" else -1)
    report = store.verify()
    assert len(report.problems) == 4
    for victim, problem in zip(victims, report.problems, strict=True):
        named = victim if victim.name == "levels.csv" else Path(str(victim.parent))
        assert str(named) in problem or victim.name in problem
    assert not (store.scratch(ONE) / "checkpoint-4").exists()
    assert (store.scratch(ONE) / "checkpoint-3").exists()
    result = CliRunner().invoke(app, ["store", "verify", "--store", str(store.root)])
    assert result.exit_code == 1
    assert "levels.csv: is not what was written" in result.output


@pytest.mark.parametrize("place", [-2, -100, -300])
def test_verify_finds_a_flipped_bit_in_a_ticket_without_checksums(store, tmp_path, place):
    ticket, _ = finished_run(store, tmp_path / "run")
    report = store.verify()
    assert (report.tickets, report.problems) == (1, ())
    (remark,) = report.remarks
    assert "has no checksums.json" in remark
    flip(ticket, place)
    (problem,) = store.verify().problems
    assert str(ticket) in problem


def test_verify_reports_checksums_that_cannot_be_read_and_checks_the_tickets(store, tmp_path):
    ticket, _ = finished_run(store, tmp_path / "run")
    (tmp_path / "run" / "checksums.json").write_text('{"files": ')
    flip(ticket, -2)
    unreadable, damaged = store.verify().problems
    assert unreadable.startswith(f"{tmp_path / 'run' / 'checksums.json'}: cannot be read")
    assert damaged.startswith(str(ticket))


def test_verify_reports_files_of_a_run_that_are_missing(store, tmp_path):
    finished_run(store, tmp_path / "run")
    write_checksums(tmp_path / "run")
    (tmp_path / "run" / "levels.csv").unlink()
    (problem,) = store.verify().problems
    assert problem.startswith(
        f"{tmp_path / 'run' / 'levels.csv'}: is missing; run its recipe again"
    )


def test_verify_tells_a_run_that_was_killed_while_it_wrote_from_damage(store, tmp_path):
    finished_run(store, tmp_path / "run")
    write_checksums(tmp_path / "run")
    (tmp_path / "run" / "levels.csv").write_text("more figures\n")
    (tmp_path / "run" / ".writing").touch()
    report = store.verify()
    assert report.problems == ()
    assert "the run was ended while it wrote" in report.remarks[0]
    with store.active("run"):
        (remark,) = Store(store.root).verify().remarks
        assert "is under way" in remark


def test_names_that_are_none_of_the_stores_are_reported_and_left_alone(store):
    put(store, ONE)
    store.set_alias(ALIAS, ONE)
    places = ["notes.txt", "objects/.DS_Store", "objects/ab", "objects/zz/file", "objects/no/other", "aliases/di/a b",
              "aliases/di/digest", "aliases/xx/digest", "scratch/file", "roots/README"]  # fmt: skip
    for place in places:
        path = store.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    (store.root / "objects" / "we ird" / "na me").mkdir(parents=True)
    (store.root / "tmp" / "strange").mkdir()
    report = store.verify()
    assert (report.checked, report.damaged, report.problems) == (1, (), ())
    assert len(report.remarks) == len(places) + 1
    assert store.info().objects == 1
    for command in (["info"], ["verify"], ["gc", "--dry-run"], ["gc"]):
        result = CliRunner().invoke(app, ["store", *command, "--store", str(store.root)])
        assert result.exit_code == 0, result.output
    assert all((store.root / place).exists() for place in places)


# Stores that one may only read


@pytest.fixture(params=[errno.EROFS, errno.EACCES])
def forbidden(request, monkeypatch):
    """Every way to write is refused, as on a read-only file system or in a folder of somebody else's."""

    def forbid(root: Path) -> None:
        def refused(real):
            def call(path, *arguments, **options):
                flags = arguments[0] if real is os.open and arguments else 0
                writes = real is not os.open or flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT)
                if (
                    writes
                    and isinstance(path, str | os.PathLike)
                    and Path(path).is_relative_to(root)
                ):
                    raise OSError(request.param, os.strerror(request.param), str(path))
                return real(path, *arguments, **options)

            return call

        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open"):
            monkeypatch.setattr(os, name, refused(getattr(os, name)))

        real_open = Path.open

        def refused_open(self, mode="r", *arguments, **options):
            if set(mode) & set("wxa+") and self.is_relative_to(root):
                raise OSError(request.param, os.strerror(request.param), str(self))
            return real_open(self, mode, *arguments, **options)

        monkeypatch.setattr(Path, "open", refused_open)

    return forbid


def test_a_store_that_may_only_be_read_serves_what_is_in_it(store, tmp_path, forbidden):
    job = dense_job(cell(5))
    execute_one(job, store, engine_context(), lambda done, of: False)
    store.set_alias("digest", job.key)
    before = sorted(store.root.rglob("*"))
    forbidden(store.root)
    reader = Store(store.root)
    with reader.active("run"):
        assert StoredOutcome(reader, job.key).metrics.steps == 5
        assert reader.alias("digest") == job.key
        reader.set_alias("digest", job.key)
        reader.set_alias("other", job.key)
        reader.pin("run", tmp_path, [job.key])
        assert reader.alias("other") is None
    assert reader.info().objects == 1
    assert reader.verify().checked == 1
    assert sorted(store.root.rglob("*")) == before
    (notice,) = reader.notices
    assert "may only be read" in notice
    assert "gc" in notice


def test_only_what_must_be_computed_is_refused_by_a_store_that_may_only_be_read(store, forbidden):
    execute_one(dense_job(cell(5)), store, engine_context(), lambda done, of: False)
    forbidden(store.root)
    reader, job = Store(store.root), dense_job(cell(6))
    for attempt in (
        lambda: execute_one(job, reader, engine_context(), lambda done, of: False),
        lambda: spool(job, reader),
        lambda: reader.write(ONE).__enter__(),
    ):
        with pytest.raises(StoreError, match=r"may only be read .*--store or LOTTERYFW_STORE"):
            attempt()


def test_damage_in_a_store_that_may_only_be_read_is_absent_and_said(store, forbidden):
    put(store, ONE)
    flip(store.root / "objects" / ONE[:2] / ONE / "weights.bin")
    forbidden(store.root)
    reader = Store(store.root)
    assert reader.path(ONE) is None
    assert reader.damaged == [ONE]
    assert "damaged objects stay where they are" in reader.notices[0]
    assert Store(store.root).verify().damaged == (ONE,)


# gc


def test_gc_keeps_what_belongs_to_run_folders_it_cannot_see(store, tmp_path):
    disk = tmp_path / "disk"
    (disk / "runs" / "one").mkdir(parents=True)
    store.pin("one", disk / "runs" / "one", [put(store, ONE).name])
    disk.rename(tmp_path / "unmounted")
    swept = store.gc()
    assert (swept.objects, swept.roots, swept.unseen) == (0, 0, (str(disk / "runs" / "one"),))
    result = CliRunner().invoke(app, ["store", "gc", "--store", str(store.root)])
    assert str(disk / "runs" / "one") in result.output
    assert "--force" in result.output
    assert store.path(ONE)
    assert "cannot be seen" in store.verify().remarks[0]
    result = CliRunner().invoke(app, ["store", "gc", "--force", "--store", str(store.root)])
    assert result.exit_code == 0
    assert store.path(ONE) is None


def test_gc_knows_that_the_disk_of_a_run_is_not_mounted(store, tmp_path, monkeypatch):
    (tmp_path / "disk" / "one").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
        store.pin("one", tmp_path / "disk" / "one", [put(store, ONE).name])
        assert store.gc().unseen == ()
    (tmp_path / "disk" / "one").rmdir()  # the mount point is an empty folder now
    assert store.gc().unseen == (str(tmp_path / "disk" / "one"),)
    assert store.path(ONE)


def test_gc_keeps_what_belongs_to_a_folder_of_another_machine(store, tmp_path, monkeypatch):
    """A run folder on a disk that each machine has for itself, as /tmp is."""
    (tmp_path / "one").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-node")
        store.pin("one", tmp_path / "one", [put(store, ONE).name])
    assert store.gc().unseen == ()  # one that is there is on a disk that both have
    (tmp_path / "one").rmdir()
    assert store.gc().unseen == (str(tmp_path / "one"),)
    assert store.path(ONE)
    assert "cannot be seen" in store.verify().remarks[0]
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-node")
        assert store.gc().roots == 1


def test_machines_with_one_path_for_folders_of_their_own_share_no_pin(store, tmp_path, monkeypatch):
    one, two = put(store, ONE).name, put(store, TWO).name
    (tmp_path / "run").mkdir()
    store.pin("run", tmp_path / "run", [one, two])
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-node")
        for _ in range(2):  # a run pins its results again and again
            store.pin("run", tmp_path / "run", [one])
        assert store.gc().kept == 2
        # its own folder is gone, and the other machine's may be there
        (tmp_path / "run").rmdir()
        assert store.gc().unseen == (str(tmp_path / "run"),)
        assert store.gc(force=True).objects == 2


def test_machines_that_share_one_folder_share_its_pin(store, tmp_path, monkeypatch):
    one, two = put(store, ONE).name, put(store, TWO).name
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-node")
        store.pin("run", tmp_path / "run", [one, two], "a folder")
    store.pin("run", tmp_path / "run", [one], "a folder")
    assert store.gc().kept == 1
    (tmp_path / "run").rmdir()
    assert store.gc().roots == 1


def test_a_run_that_is_deleted_leaves_what_another_machine_pinned(store, tmp_path, monkeypatch):
    one, two = put(store, ONE).name, put(store, TWO).name
    folder = RunFolder.create(tmp_path / "run", "", "")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-node")
        store.pin("run", folder.path, [two], "its folder")
    store.pin("run", folder.path, [one, two], "this folder")
    assert run_files(folder, store.root).objects == 1
    remove_run(folder, store.root)
    assert store.gc().kept == 1
    assert store.path(TWO)


def test_a_root_of_an_earlier_version_names_no_machine(store, tmp_path):
    root = {"folder": str(tmp_path / "one"), "mount": "", "keys": [put(store, ONE).name]}
    root["sha256"] = digest(root)
    store.pin("one", tmp_path, [])
    for suffix in ("json", "copy"):
        (store.root / "roots" / f"one.{suffix}").write_text(json.dumps(root))
    (tmp_path / "one").mkdir()
    assert store.gc().kept == 1
    (tmp_path / "one").rmdir()
    assert store.gc().roots == 1


def test_gc_keeps_a_run_whose_folder_may_not_be_read(store, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    store.pin("one", tmp_path / "one", [put(store, ONE).name])
    real = os.stat

    def refused(path, *arguments, **options):
        if str(path) == str(tmp_path / "one"):
            raise PermissionError(errno.EACCES, "no", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert store.gc().unseen == (str(tmp_path / "one"),)
    assert store.path(ONE)


@pytest.mark.parametrize("command", ["info", "verify", "gc"])
def test_commands_about_an_absent_store_create_nothing_and_say_so(tmp_path, command):
    result = CliRunner().invoke(app, ["store", command, "--store", str(tmp_path / "absent")])
    assert result.exit_code == 0
    assert "there is no store yet" in result.output
    assert list(tmp_path.iterdir()) == []
