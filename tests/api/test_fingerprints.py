"""Files decide results, so their contents are in the keys: hashed once, and again when anything differs."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lotteryfw.api import fingerprints
from lotteryfw.api.data import Dataset, DatasetInfo
from lotteryfw.api.errors import ContractError, DataError, PluginError
from lotteryfw.api.fingerprints import cache_folder, files_fingerprint, fingerprint_of
from lotteryfw.api.kinds import DataSource


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which keeps the hashes of small files and of files written just now, too."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(fingerprints, "cache_folder", lambda: folder / "hashes")
    monkeypatch.setattr(fingerprints, "WORTH_KEEPING", 0)
    monkeypatch.setattr(fingerprints, "SETTLED_NS", -(10**18))
    return folder / "hashes"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files, one in a folder of its own."""
    (tmp_path / "set" / "more").mkdir(parents=True)
    paths = [tmp_path / "set" / name for name in ("a", "b", "more/c")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read to be hashed."""
    names: list[str] = []
    hash_file = fingerprints._hash

    def counted(path: str) -> str:
        names.append(os.path.basename(path))
        return hash_file(path)

    monkeypatch.setattr(fingerprints, "_hash", counted)
    return names


def test_contents_and_names_count_and_order_and_folder_do_not(
    files: list[Path], tmp_path: Path
) -> None:
    before = files_fingerprint(files)
    assert len(before) == 64
    assert files_fingerprint(reversed(files)) == before
    assert files_fingerprint(map(str, files)) == before
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(tmp_path / "set") for path in files]
    assert files_fingerprint(moved) == before
    moved[0].write_bytes(b"x" * 100)
    assert files_fingerprint(moved) != before
    moved[0].write_bytes(bytes(100))
    assert files_fingerprint(moved) == before
    moved[0].rename(tmp_path / "moved" / "other")
    assert files_fingerprint([tmp_path / "moved" / "other", *moved[1:]]) != before


def test_names_are_relative_to_the_root(files: list[Path], tmp_path: Path) -> None:
    assert files_fingerprint(files[2:]) != files_fingerprint(files[2:], tmp_path / "set")
    assert files_fingerprint(files, tmp_path / "set") == files_fingerprint(files)
    assert files_fingerprint([]) == files_fingerprint([], tmp_path)


def test_a_file_that_is_not_there_counts_as_absent(files: list[Path]) -> None:
    whole, part = files_fingerprint(files), files_fingerprint(files[:2], files[0].parent)
    files[2].unlink()
    absent = files_fingerprint(files)
    assert len({whole, part, absent}) == 3


def test_a_file_is_read_once_and_again_when_anything_about_it_changed(
    files: list[Path], reads: list[str]
) -> None:
    before = files_fingerprint(files)
    assert sorted(reads) == ["a", "b", "c"]
    assert files_fingerprint(files) == before
    assert len(reads) == 3
    about = files[1].stat()
    files[1].write_bytes(b"!" * 100)
    os.utime(
        files[1], ns=(about.st_atime_ns, about.st_mtime_ns)
    )  # as unpacking an archive sets the time back
    assert files_fingerprint(files) != before
    assert reads[3:] == ["b"]


STAT_FIELDS = ("size", "mtime", "ctime", "inode", "device")


@pytest.mark.parametrize("field", range(5), ids=STAT_FIELDS)
def test_a_kept_hash_is_not_used_when_one_field_differs(
    files: list[Path], reads: list[str], cache: Path, field: int
) -> None:
    before = files_fingerprint(files)
    (kept,) = cache.iterdir()
    content = json.loads(kept.read_text())
    content["files"][str(files[0])][field] += 1
    content["files"][str(files[0])][-1] = "0" * 64
    kept.write_text(json.dumps(content))
    del reads[:]
    assert files_fingerprint(files) == before
    assert reads == ["a"]


def test_the_kept_hash_is_used_when_nothing_differs(files: list[Path], cache: Path) -> None:
    before = files_fingerprint(files)
    (kept,) = cache.iterdir()
    kept.write_text(kept.read_text().replace(fingerprints._hash(str(files[0])), "0" * 64))
    assert files_fingerprint(files) != before  # or the tests above would show nothing


DAMAGE: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another shape": lambda text: '{"files": [1, 2]}',
    "a list": lambda text: "[]",
    "strange entries": lambda text: text.replace("[", '{"size": [').replace("]", "]}"),
    "no hashes": lambda text: json.dumps(
        {"files": {p: [*k[:-1], 3] for p, k in json.loads(text)["files"].items()}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_hashes_are_computed_anew(
    files: list[Path], cache: Path, reads: list[str], damage: str
) -> None:
    before = files_fingerprint(files)
    (kept,) = cache.iterdir()
    kept.write_text(DAMAGE[damage](kept.read_text()))
    assert files_fingerprint(files) == before
    assert len(reads) == 6
    assert files_fingerprint(files) == before
    assert len(reads) == 6


def test_a_cache_that_cannot_be_written_costs_only_time(
    files: list[Path], cache: Path, reads: list[str]
) -> None:
    cache.write_text("a file stands where the folder should be")
    assert files_fingerprint(files) == files_fingerprint(files)
    assert len(reads) == 6


def test_two_sets_in_one_folder_keep_each_others_hashes(
    files: list[Path], cache: Path, reads: list[str]
) -> None:
    root = files[0].parent
    for _ in range(2):
        files_fingerprint(files[:1], root)
        files_fingerprint(files[1:], root)
    assert sorted(reads) == ["a", "b", "c"]
    assert [path.suffix for path in cache.iterdir()] == [".json"]  # nothing is left of writing it


def test_a_file_that_changed_just_now_is_read_again(
    files: list[Path], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 3600 * 10**9)
    files_fingerprint(files)
    files_fingerprint(files)
    assert len(reads) == 6


def test_a_file_that_changes_while_it_is_read_is_refused(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_file = fingerprints._hash

    def growing(path: str) -> str:
        content = hash_file(path)
        with Path(path).open("ab") as file:
            file.write(b"more")
        return content

    monkeypatch.setattr(fingerprints, "_hash", growing)
    with pytest.raises(DataError, match="changed while it was read"):
        files_fingerprint(files)


def test_a_file_that_cannot_be_read_is_named(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(DataError, match=r"/set/a cannot be read: Permission denied"):
        files_fingerprint(files)


def test_of_many_files_a_stated_sample_is_read_and_names_and_sizes_of_all(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "MANY_FILES", 9)
    monkeypatch.setattr(fingerprints, "SAMPLE", 5)
    paths = [tmp_path / f"{number:02}" for number in range(10)]
    for path in paths:
        path.write_text("x")
    before = files_fingerprint(paths)
    assert reads == ["00", "02", "04", "06", "08"]
    paths[3].write_text("y")  # neither read nor of another size: the price
    assert files_fingerprint(paths) == before
    paths[3].write_text("longer")
    assert files_fingerprint(paths) != before
    paths[3].write_text("x")
    paths[4].write_text("y")
    assert files_fingerprint(paths) != before


class Mine(DataSource):
    """Reads two files, if it names them."""

    use = "mine"
    names: tuple[str, ...] = ()

    def files(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.names]

    def facts(self, folder: Path) -> DatasetInfo:
        raise NotImplementedError

    def load(self, folder: Path) -> Dataset:
        raise NotImplementedError


def test_a_source_that_names_its_files_is_fingerprinted_by_them(files: list[Path]) -> None:
    folder = files[0].parent
    assert Mine().fingerprint(folder) == ""
    assert Mine(names=("a", "b")).fingerprint(folder) == files_fingerprint(files[:2])


def test_a_fingerprint_is_asked_once_for_each_source_object(
    files: list[Path], reads: list[str]
) -> None:
    folder, source = files[0].parent, Mine(names=("a",))
    before = fingerprint_of(source, folder)
    files[0].write_text("changed")
    assert fingerprint_of(source, folder) == before  # a study sees one state of the files
    assert fingerprint_of(Mine(names=("a",)), folder) != before  # the next study looks again
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("value", "error"), [(ValueError("no"), PluginError), (None, ContractError)]
)
def test_a_fingerprint_that_breaks_names_the_source(value: object, error: type[Exception]) -> None:
    class Broken(Mine):
        def fingerprint(self, folder: Path) -> str:
            if isinstance(value, Exception):
                raise value
            return value  # type: ignore[return-value]

    with pytest.raises(error, match=r"data 'mine'.* fingerprint\(\)"):
        fingerprint_of(Broken(), Path("unused"))


def test_hashes_are_kept_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder().parts[-2:] == ("lotteryfw", "hashes")
