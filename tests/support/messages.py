"""The command line in this process, for tests that look at many messages."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from lotteryfw.cli import main, signals
from lotteryfw.recipe import read


class CommandLine:
    """Runs command lines in a folder, without the start of a process for each."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LOTTERYFW_STORE", "store")
        monkeypatch.setenv("LOTTERYFW_DATA", "data")
        monkeypatch.setenv("COLUMNS", "100")

    def __call__(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """Return a command's exit code and what it wrote to stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        read._input.cache_clear()
        self._monkeypatch.setattr(sys, "argv", ["lotteryfw", *words])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        handlers = {name: signal.getsignal(getattr(signal, name)) for name in signals.NAMES}
        code: object = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                main()
        except SystemExit as ended:
            code = ended.code
        finally:
            for name, handler in handlers.items():
                signal.signal(getattr(signal, name), handler)
        return int(code) if isinstance(code, int) else 0, out.getvalue(), err.getvalue()
