"""A process that has imported what commands import, and forks for each command that tests run.

A command starts so at once, where a new interpreter takes seconds to import torch. It is a process
of its own all the same, with its own folder, variables and output.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_ALSO = ("torch._dynamo", "matplotlib.backends.backend_agg", "matplotlib.figure", "rich.progress")
"""What commands import where they need it, beside lotteryfw's own modules."""


@dataclass(frozen=True)
class Request:
    """A command line of lotteryfw: its arguments, folder and variables, and the files of its output."""

    words: list[str]
    folder: str
    environment: dict[str, str]
    stdout: str
    stderr: str


class ForkServer:
    """The server of this process, which is started when the first command is run."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, words: list[str], folder: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line of lotteryfw in a folder, with these variables."""
        process = self._started()
        with tempfile.TemporaryDirectory() as outputs:
            out, err = Path(outputs, "out"), Path(outputs, "err")
            request = Request(words, str(folder), environment, str(out), str(err))
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(request)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, "the fork server has ended"
            return subprocess.CompletedProcess(words, int(answer), out.read_text(), err.read_text())

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # Ctrl-C in the terminal is for pytest
                start_new_session=True,
            )
            atexit.register(self._process.kill)
        return self._process


def _import_all() -> None:
    import lotteryfw

    for module in pkgutil.walk_packages(lotteryfw.__path__, "lotteryfw."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _ALSO:
        # an extra may not be installed
        with suppress(ImportError):
            importlib.import_module(name)


def _serve() -> Request:
    """Fork for each request. Return in the new processes, with what is asked of them."""
    for line in sys.stdin:
        request = Request(**json.loads(line))
        process = os.fork()
        if process == 0:
            return request
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    raise SystemExit


def _become(request: Request) -> None:
    """Take the folder, the variables, the arguments and the output of a command."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    program = "from lotteryfw.cli import main; main()"
    sys.argv = ["-c", *request.words]
    # a run's manifest names the command that made it
    sys.orig_argv[:] = [sys.executable, "-c", program, *request.words]
    sys.path[0] = ""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, request.stdout), (2, request.stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = os.fdopen(0)


if __name__ == "__main__":
    _import_all()
    # what the imports made is never looked at again, and so not copied either
    gc.freeze()
    _become(_serve())
    from lotteryfw.cli import main

    main()
