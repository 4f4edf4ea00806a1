"""The store: whole objects or none, whatever breaks, whoever else is at work."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lotteryfw.api.digests import digest
from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import Store, atomic_write, default_root, files
from lotteryfw.store.reader import ObjectReader

KEY, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, key: str = KEY, content: bytes = b"weights") -> Path:
    with store.write(key, kind="training") as folder:
        (folder / "weights.bin").write_bytes(content)
        (folder / "more").mkdir()
        (folder / "more" / "curve.json").write_text("[1, 2]")
    path = store.path(key)
    assert path is not None
    return path


def remains(store: Store) -> list[str]:
    """Everything in tmp/, where nothing should stay."""
    return [path.name for path in store.root.glob("tmp/*")]


def fail_with(code: int):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_what_is_written_is_read(store):
    assert not store.has(KEY)
    assert store.path(KEY) is None
    path = put(store)
    assert store.has(KEY)
    assert (path / "weights.bin").read_bytes() == b"weights"
    index = json.loads((path / "object.json").read_text())
    assert index["kind"] == "training"
    assert index["created_by"].startswith("lotteryfw ")
    assert index["files"]["more/curve.json"]["size"] == 6
    assert list(store.all_keys()) == [KEY]
    assert remains(store) == []


def test_an_error_in_the_block_leaves_nothing(store):
    def break_off() -> None:
        with store.write(KEY) as folder:
            (folder / "half").write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        break_off()
    assert not store.has(KEY)
    assert remains(store) == []


DAMAGES = {
    "truncated": lambda path: (path / "weights.bin").write_bytes(b"wei"),
    "flipped": lambda path: (path / "weights.bin").write_bytes(b"weighta"),
    "missing": lambda path: (path / "weights.bin").unlink(),
    "nested": lambda path: (path / "more" / "curve.json").write_text("[1, 3]"),
    "no index": lambda path: (path / "object.json").unlink(),
    "index cut": lambda path: (path / "object.json").write_text('{"files": {"weig'),
    "index binary": lambda path: (path / "object.json").write_bytes(b"\xff\x00\x80"),
    "index other": lambda path: (path / "object.json").write_text("[]"),
    "index deep": lambda path: (path / "object.json").write_text("[" * 100_000),
    "index wrong": lambda path: (path / "object.json").write_text('{"files": {"weights.bin": 7}}'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_object_is_set_aside_and_can_be_written_again(store, damage):
    for number in (1, 2):
        damage(put(store))
        fresh = Store(store.root)
        assert fresh.path(KEY) is None
        assert not fresh.has(KEY)
        assert fresh.damaged == [KEY]
        aside = store.root / "damaged" / f"{KEY}-{number}"
        assert (aside / "more").is_dir()
        assert (aside / "damage.txt").read_text().strip()
    put(store)
    assert Store(store.root).path(KEY) is not None


def test_content_is_checked_once_a_process(store, monkeypatch):
    path = put(store)
    fresh = Store(store.root)
    assert fresh.path(KEY) == path
    monkeypatch.setattr(ObjectReader, "check", fail_with(errno.EIO))
    assert fresh.path(KEY) == path


def test_an_object_that_went_away_is_absent_and_not_damaged(store):
    put(store)
    store.remove(KEY)
    assert store.path(KEY) is None
    assert store.damaged == []
    assert not list(store.root.glob("damaged/*"))


def test_verify_finds_damage_even_in_objects_already_read(store):
    (put(store) / "weights.bin").write_bytes(b"weighta")
    put(store, OTHER)
    report = store.verify()
    assert (report.checked, report.damaged) == (2, (KEY,))
    assert store.path(KEY) is None
    assert store.path(OTHER)
    assert store.verify().damaged == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full: free space and run the same command again"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_failing_disk_is_told_in_words_and_leaves_nothing_half(
    store, monkeypatch, code, words, call
):
    put(store, OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(code))
        with pytest.raises(StoreError, match=words) as caught:
            put(store)
        assert str(store.root) in str(caught.value)
    assert not store.has(KEY)
    assert remains(store) == []
    assert store.path(OTHER)
    put(store)


def test_a_disk_that_fills_while_the_block_writes(store):
    with (
        pytest.raises(StoreError, match="disk is full"),
        store.write(KEY),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert not store.has(KEY)


def test_atomic_write_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail_with(errno.ENOSPC))
            with pytest.raises(StoreError, match="disk is full"):
                atomic_write(path, b"new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() == b"old"


@pytest.mark.parametrize("below", ["", "one", "one/two"])
def test_a_folder_that_is_a_file_is_a_users_mistake_and_reading_says_so_too(tmp_path, below):
    file = tmp_path / "afile"
    file.write_text("")
    with pytest.raises(UsageError, match=f"^{re.escape(str(file))}: is a file, not a folder$"):
        Store(file / below)


def test_every_file_of_an_object_is_flushed_once_and_before_it_is_there(store, monkeypatch):
    flushed, flush = [], os.fsync

    def watched(number: int) -> None:
        assert not store.has(KEY)
        flushed.append(os.fstat(number).st_ino)
        flush(number)

    store.set_alias(
        "digest", OTHER
    )  # makes the store; of the alias itself nothing is lost that a rerun does not find
    monkeypatch.setattr(os, "fsync", watched)
    path = put(store)
    assert sorted(flushed) == sorted(
        file.stat().st_ino for file in path.rglob("*") if file.is_file()
    )
    store.set_alias("digest", KEY)
    assert len(flushed) == 3


def test_the_second_writer_of_a_key_gives_way(store):
    with store.write(KEY) as late:
        (late / "weights.bin").write_bytes(b"second")
        put(Store(store.root), content=b"first")
    path = store.path(KEY)
    assert path is not None
    assert (path / "weights.bin").read_bytes() == b"first"
    assert remains(store) == []


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    prelude = "import os, sys, time\nfrom pathlib import Path\nfrom lotteryfw.store import Store\n"
    prelude += "store, key = Store(Path(sys.argv[1])), sys.argv[2]\n"
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def test_processes_that_write_one_key_at_once_leave_one_sound_object(store):
    code = """
print("ready", flush=True); sys.stdin.readline()
for number in range(20):
    with store.write(f"{number:064x}") as folder:
        for part in range(3):
            (folder / f"part{part}").write_bytes(os.urandom(1000))
    assert store.path(f"{number:064x}")
assert not store.damaged
"""
    writers = [child(code, store.root, KEY) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.verify().checked == 20
    assert store.damaged == []
    assert remains(store) == []


def test_a_killed_writer_leaves_no_half_object_and_no_lock_and_gc_removes_its_remains(store):
    code = """
with store.active("run"), store.lock(key), store.write(key) as folder:
    (folder / "weights.bin").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""
    writer = child(code, store.root, KEY)
    assert writer.stdout.readline() == "ready\n"
    with pytest.raises(StoreError, match="in use"):
        store.gc()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not store.has(KEY)
    assert len(remains(store)) == 1
    with store.lock(KEY), store.active("run"):
        put(store)
    assert store.gc(dry_run=True).leftovers == 1
    assert len(remains(store)) == 1
    assert store.gc().leftovers == 1
    assert remains(store) == []


def test_writers_killed_at_random_moments_leave_only_whole_objects(store):
    code = """
print("ready", flush=True)
for number in range(10_000):
    with store.write(f"{key}{number:032x}") as folder:
        (folder / "weights.bin").write_bytes(bytes(20_000))
"""
    for number, moment in enumerate((0.01, 0.03, 0.05)):
        writer = child(code, store.root, f"{number:032x}")
        assert writer.stdout.readline() == "ready\n"
        time.sleep(moment)
        writer.kill()
        writer.wait()
    assert store.verify().damaged == ()


def test_a_lock_is_waited_for(store):
    order = []

    def other() -> None:
        with Store(store.root).lock(KEY):
            order.append("other")

    with store.lock(KEY):
        thread = threading.Thread(target=other)
        thread.start()
        with Store(store.root).lock(OTHER):
            time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"]


def test_gc_keeps_what_roots_reference(store, tmp_path):
    runs = [tmp_path / "run1", tmp_path / "run2"]
    derived = {name: digest(name) for name in ("run1", "run2", "orphan")}
    for run, key in zip(runs, (KEY, OTHER), strict=True):
        run.mkdir()
        put(store, key)
        store.pin(run.name, run, [key])
        store.set_alias(derived[run.name], key)
        store.scratch(key).mkdir(parents=True)
    unfinished, orphan = "ef" * 32, "01" * 32
    store.scratch(unfinished).mkdir()
    put(store, orphan)
    store.set_alias(derived["orphan"], orphan)

    assert (store.gc().objects, store.has(orphan), store.alias(derived["orphan"])) == (
        1,
        False,
        None,
    )
    assert store.path(KEY)
    assert store.path(OTHER)
    assert not (store.root / "scratch" / KEY).exists()
    assert (store.root / "scratch" / unfinished).exists()

    runs[0].rmdir()
    plan = store.gc(dry_run=True)
    assert (plan.objects, plan.kept, plan.roots, plan.aliases, plan.dry_run) == (1, 1, 1, 1, True)
    assert plan.bytes > len(b"weights")
    assert store.has(KEY)
    done = store.gc()
    assert (done.objects, done.kept, done.roots, done.aliases, done.bytes) == (
        1,
        1,
        1,
        1,
        plan.bytes,
    )
    assert not store.has(KEY)
    assert store.alias(derived["run1"]) is None
    assert store.path(OTHER)
    assert store.alias(derived["run2"]) == OTHER
    assert store.info().roots == 1
    assert store.gc().objects == 0


def test_gc_removes_scratch_that_nothing_has_touched_for_two_weeks(store):
    day, now = 24 * 3600, time.time()
    ages = {
        "just-now": [0],
        "yesterday": [1],
        "mixed": [30, 13],
        "old": [30, 15],
        "long-gone": [15],
        "empty": [],
    }
    keys = {name: digest(name) for name in ages}
    for name, days in ages.items():
        (store.scratch(keys[name]) / "job").mkdir(parents=True)
        for place, age in enumerate(days):
            file = store.scratch(keys[name]) / "job" / f"{place}"
            file.write_text("")
            os.utime(file, (now - age * day,) * 2)
    os.utime(store.scratch(keys["empty"]), (now - 15 * day,) * 2)
    assert store.gc(dry_run=True).leftovers == 3
    assert store.gc().leftovers == 3
    assert {path.name for path in store.root.glob("scratch/*")} == {
        keys["just-now"],
        keys["yesterday"],
        keys["mixed"],
    }


def test_gc_refuses_while_anybody_is_at_work(store):
    put(store)
    for held in (store.active("study"), store.lock(KEY)):
        with held, pytest.raises(StoreError, match="in use, so nothing was deleted"):
            store.gc()
        assert store.has(KEY)
    assert store.gc().objects == 1


@pytest.mark.parametrize("suffix", [".json", ".copy"])
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_gc_keeps_what_a_root_references_that_lost_one_of_its_two_files(
    store, tmp_path, suffix, damage
):
    run = tmp_path / "run"
    run.mkdir()
    put(store)
    store.pin("run", run, [KEY])
    path = (store.root / "roots" / "run").with_suffix(suffix)
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    assert (store.gc().objects, store.has(KEY)) == (0, True)
    assert [str(path) in problem for problem in store.verify().problems] == [True]
    store.pin("run", run, [KEY])
    assert store.verify().problems == ()


def test_gc_deletes_nothing_where_a_root_cannot_be_read(store):
    put(store)
    store.pin("run", store.root, [KEY])
    for suffix in (".json", ".copy"):
        (store.root / "roots" / f"run{suffix}").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json"):
        store.gc()
    assert store.has(KEY)


def test_gc_leaves_what_living_processes_are_writing(store):
    with store.write(KEY) as folder:
        store.gc()
        (folder / "weights.bin").write_bytes(b"weights")
    assert store.path(KEY)


def test_a_run_waits_for_a_gc_and_is_active_only_once(store):
    with (
        store.active("run"),
        pytest.raises(StoreError, match="'run' is under way"),
        Store(store.root).active("run"),
    ):
        pass
    begun = threading.Event()

    def run() -> None:
        with Store(store.root).active("run"):
            begun.set()

    thread = threading.Thread(target=run)
    with store._quiet():
        thread.start()
        assert not begun.wait(0.2)
    assert begun.wait(10)
    thread.join(10)


def test_aliases_survive_damage(store):
    assert store.alias("digest") is None
    store.set_alias("digest", KEY)
    assert Store(store.root).alias("digest") == KEY
    (store.root / "aliases" / "di" / "digest").write_bytes(b"\xff\n")
    assert store.alias("digest") is None
    store.set_alias("digest", OTHER)
    assert store.alias("digest") == OTHER


def test_scratch_comes_and_goes(store):
    assert not store.scratch(KEY).exists()
    atomic_write(store.scratch(KEY) / "checkpoint", b"1")
    assert (Store(store.root).scratch(KEY) / "checkpoint").read_text() == "1"
    store.drop_scratch(KEY)
    store.drop_scratch(KEY)
    assert not (store.root / "scratch" / KEY).exists()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "é", "a\n"])
def test_a_name_cannot_leave_the_store(store, name):
    for call in (store.has, store.path, store.scratch, store.drop_scratch, store.alias):
        with pytest.raises(ValueError, match="cannot name"):
            call(name)


def test_reading_makes_nothing_and_writing_makes_the_format_file(store):
    assert store.info().objects == 0
    assert store.verify().checked == 0
    assert not store.root.exists()
    put(store)
    assert json.loads((store.root / "store.json").read_text()) == {"format": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"format": 2}', "update lotteryfw"), ("{", "not the file"), ("[]", "not the file")],
)
def test_a_store_of_a_newer_format_or_a_foreign_one_is_refused(tmp_path, text, words):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=words):
        Store(tmp_path)


def test_info_counts(store):
    (put(store) / "weights.bin").write_bytes(b"weighta")
    put(store, OTHER, bytes(5000))
    Store(store.root).verify()
    store.pin("run", store.root, [OTHER])
    info = store.info()
    assert (info.objects, info.roots, info.damaged) == (1, 1, 1)
    assert 5000 < info.bytes < 6000


def dead_name() -> str:
    """The `own_name` of a process that has ended."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return f"{gone.pid}-{files.own_name().split('-', 1)[1]}"


def test_abandoned_names(monkeypatch):
    assert not files.is_abandoned(files.own_name())
    assert files.is_abandoned(dead_name())
    here = files.own_name()
    monkeypatch.setattr("socket.gethostname", lambda: "another-host.example")
    assert files.is_abandoned(here)
    assert not files.is_abandoned(files.own_name())


def test_gc_removes_half_written_small_files_of_the_dead_only(store):
    store.pin("run", store.root, [put(store).name])
    store.set_alias("digest", KEY)
    places = [store.root, store.root / "roots", store.root / "aliases" / "di"]
    halves = [
        place / f".{name}.tmp" for place in places for name in (dead_name(), files.own_name())
    ]
    for half in halves:
        half.write_bytes(b"half")
    assert store.gc().leftovers == 3
    assert [half.exists() for half in halves] == [False, True] * 3
    assert store.alias("digest") == KEY


def test_the_root_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("LOTTERYFW_STORE", "~/shared")
    assert default_root() == Path.home() / "shared"
    monkeypatch.delenv("LOTTERYFW_STORE")
    assert default_root().parts[-2:] == ("lotteryfw", "store")


def test_a_thousand_objects_are_read_in_seconds(store):
    names = [f"{number:064x}" for number in range(200)]
    for name in names:
        with store.write(name) as folder:
            (folder / "weights.bin").write_bytes(bytes(300_000))
    fresh, begin = Store(store.root), time.perf_counter()
    assert all(fresh.path(name) for name in names)
    assert time.perf_counter() - begin < 1.0  # a fifth of a thousand, in a fifth of 5 s


def test_a_file_is_checked_when_it_is_read_and_not_before(store):
    with store.write(KEY, "training") as folder:
        (folder / "outcome.json").write_bytes(b"{}")
        (folder / "tensors.bin").write_bytes(b"weights")
    weights = store.path(KEY) / "tensors.bin"
    weights.write_bytes(b"weighty")  # of the same size
    fresh = Store(store.root)
    assert fresh.is_sealed(KEY, "training")
    assert fresh.read(KEY, "outcome.json") == b"{}"
    assert fresh.file(KEY, "outcome.json") == weights.with_name("outcome.json")
    assert fresh.damaged == []
    assert fresh.file(KEY, "tensors.bin") is None
    assert fresh.damaged == [KEY]
    assert not fresh.is_sealed(KEY)
    assert fresh.read(KEY, "outcome.json") is None


@pytest.mark.parametrize("damage", ["shorter", "missing", "kind", "outcome"])
def test_what_a_look_at_the_description_shows_is_set_aside(store, damage):
    with store.write(KEY, "training") as folder:
        (folder / "outcome.json").write_bytes(b"{}")
        (folder / "tensors.bin").write_bytes(b"weights")
    path = store.path(KEY)
    fresh = Store(store.root)
    if damage == "shorter":
        (path / "tensors.bin").write_bytes(b"weight")
    elif damage == "missing":
        (path / "tensors.bin").unlink()
    elif damage == "outcome":
        (path / "outcome.json").write_bytes(b"[]")
        assert fresh.is_sealed(KEY)
        assert fresh.read(KEY, "outcome.json") is None
    assert not fresh.is_sealed(KEY, "state" if damage == "kind" else "training")
    assert fresh.damaged == [KEY]
