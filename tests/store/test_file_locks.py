"""File locks where there is no flock: the form for Windows, with a stand-in for its module."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lotteryfw.store import file_locks

HOLD = """
import os, sys
from lotteryfw.store.file_locks import try_lock
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print(try_lock(descriptor), flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        descriptor = os.open(path, os.O_RDWR)
        assert not file_locks.try_lock(descriptor)
        holder.kill()
    assert file_locks.try_lock(descriptor)
    file_locks.unlock(descriptor)
    os.close(descriptor)


class Msvcrt(ModuleType):
    """Locks as Windows does: one byte of a file, given up by the holder or with its descriptor."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: set[tuple[int, int]] = set()

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert count == 1
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        status = os.fstat(descriptor)
        file = (status.st_dev, status.st_ino)
        if mode == self.LK_UNLCK:
            self.held.remove(file)
        elif file in self.held:
            # what Windows raises for a byte that somebody has locked
            raise OSError(errno.EACCES, "Permission denied")
        else:
            self.held.add(file)


def test_the_form_for_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("windows_locks", file_locks.__file__)
    assert spec is not None
    assert spec.loader is not None
    windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(windows)
    monkeypatch.undo()

    path = tmp_path / "lock"
    first = os.open(path, os.O_RDWR | os.O_CREAT)
    second = os.open(path, os.O_RDWR)
    os.write(second, b"x")  # the position in the file must not matter
    assert windows.try_lock(first)
    assert not windows.try_lock(second)
    windows.unlock(first)
    assert windows.try_lock(second)
    os.close(first)
    os.close(second)
