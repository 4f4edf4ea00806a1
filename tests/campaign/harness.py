"""What every kind of fault needs: a small study, commands in processes of their own, and a tally.

Commands run in children of a fork server that has torch and lotteryfw imported: starting one takes
milliseconds, and each is a fresh process that may be killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pkgutil
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STUDY: dict[str, Any] = {
    "name": "study",
    "seeds": [0, 1],
    "data": {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 1.0},
    "model": {"use": "mlp", "hidden": [8, 6]},
    "search": {"use": "imp", "levels": 2},
    "rewind": {"use": "to_step", "step": "10it", "optimizer": "saved"},
    "scope": {"use": "layerwise", "rate": 0.4},
    "controls": ["reinit"],
    "analyses": ["mask_diagnostics"],
    "train": {"length": "40it", "batch": 16, "optimizer": {"use": "adam", "lr": 0.01}},
    "evaluate": {"points": 2},
}
LONGER = STUDY | {"search": {"use": "imp", "levels": 3}}
"""The study with one level more: it starts from the tensors of the levels before."""
SLOWER = STUDY | {
    "seeds": [0],
    "controls": [],
    "train": STUDY["train"] | {"length": "400it"},
    "engine": {"kernel": "reference"},
}
"""A study whose trainings last long enough to be interrupted in the middle."""
SEEDED = STUDY | {"seeds": [0], "rewind": "to_init", "controls": [], "analyses": []}
"""A study of which `export` can write tickets as a seed."""
STUDIES = {"study": STUDY, "longer": LONGER, "slower": SLOWER, "seeded": SEEDED}

_PRELOADED = [
    "torch",
    "filelock",
    "numpy.ctypeslib",
    "platformdirs",
    "safetensors.torch",
    "lotteryfw.cli",
    "lotteryfw.engine",
    "lotteryfw.report",
    "lotteryfw.runner",
]
_LONGEST = 120.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed. A negative status is the signal that ended it."""

    status: int | None
    out: str
    err: str

    def faults(self, *, killed: bool = False) -> list[str]:
        """Return what no command may do, whatever it met; one that we `killed` owes no message."""
        faults = []
        if self.status is None:
            faults.append(f"did not end within {_LONGEST:.0f} s")
        elif self.status < 0 and not killed:
            faults.append(f"was ended by {signal.Signals(-self.status).name}")
        if "Traceback (most recent call last)" in self.err + self.out:
            faults.append(f"printed a traceback: {self.err.strip().splitlines()[-1:]}")
        if self.status not in (0, None) and not killed and not (self.err + self.out).strip():
            faults.append(f"ended with status {self.status} and no message")
        return faults


class Command:
    """A command that is under way in a process, and a process group, of its own."""

    def __init__(self, folder: Path, target: Callable[..., None], *arguments: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._started = folder / "started"
        self._started.unlink(missing_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preloaded())
        self._process = context.Process(target=_enter, args=(folder, target, arguments))
        self._process.start()

    def is_running(self) -> bool:
        return self._process.is_alive()

    def wait_until_started(self) -> None:
        """Wait until the command itself begins."""
        while not self._started.exists() and self.is_running():
            time.sleep(0.002)

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to its workers as well."""
        pid = self._process.pid
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    def kill(self) -> Done:
        """Kill the process and its workers."""
        self.send(signal.SIGKILL, group=True)
        return self.wait()

    def has_workers(self, seconds: float) -> bool:
        """Return whether processes of its group are left, `seconds` after it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid or 0, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        return True

    def wait(self, *, leave_workers: bool = False) -> Done:
        """Wait for the end; a command that hangs is killed, and what it left running as well."""
        self._process.join(_LONGEST)
        status = self._process.exitcode
        if status is None or not leave_workers:
            self.send(signal.SIGKILL, group=True)
        self._process.join()
        texts = [(self._folder / name).read_text(errors="replace") for name in ("out", "err")]
        return Done(status, *texts)


def _preloaded() -> list[str]:
    """Return the modules that the fork server imports, as far as they exist."""
    modules = list(_PRELOADED)
    for package in ("lotteryfw.std", "lotteryfw.engine.kernels"):
        spec = importlib.util.find_spec(package)
        paths = spec.submodule_search_locations if spec else []
        modules += [module.name for module in pkgutil.iter_modules(paths, f"{package}.")]
    return modules


def _enter(folder: Path, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run in the child: its output goes into files of `folder`."""
    os.setsid()
    os.chdir(folder)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ |= {"OMP_NUM_THREADS": "1", "LOTTERYFW_DATA": str(folder / "data")}
    (folder / "started").touch()
    target(*arguments)


def lotteryfw(*words: str) -> None:
    """The command line."""
    from lotteryfw.cli import main

    sys.argv = ["lotteryfw", *words]
    main()


def study(name: str, out: Path, store: Path, jobs: int = 1, every: float = 60.0) -> None:
    """The command `lotteryfw recipe` without its report, which takes longer than the trainings.

    `every`: seconds from one checkpoint to the next.
    """
    from lotteryfw import LotteryError, run

    try:
        run(
            STUDIES[name],
            out=out,
            store=store,
            jobs=jobs,
            device="cpu",
            checkpoint_seconds=every,
            listener=_Warnings(),
        )
    except LotteryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


class _Warnings:
    """A listener that prints warnings, as the command line does."""

    def event(self, event: object) -> None: ...
    def progress(self, progress: Any) -> None: ...

    def warning(self, message: str) -> None:
        print(message, file=sys.stderr)


def fast_folder() -> str | None:
    """Return a folder in memory, where flushing files costs nothing, or None if there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def results(run: Path) -> dict[str, bytes]:
    """Return what has to be the same to the bit: figures, findings and tickets, by path."""
    paths = [run / "levels.csv", run / "curves.jsonl", run / "analyses.jsonl"]
    paths += sorted((run / "tickets").rglob("*.safetensors"))
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths if path.exists()}


def differences(ours: dict[str, bytes], right: dict[str, bytes]) -> list[str]:
    """Return the names of the files that differ."""
    names = sorted(ours.keys() | right.keys())
    return [name for name in names if ours.get(name) != right.get(name)]


@dataclass
class Row:
    """One kind of fault: how often it was tried, and what went wrong."""

    attempts: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""


class Campaign:
    """The undisturbed results, a folder to work in, the draws and the tally."""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder = folder
        self.seed = seed
        self.rows: dict[str, Row] = {}
        self.right: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        self._templates: dict[str, Path] = {}

    def draws(self, kind: str, number: int) -> random.Random:
        """Return the random numbers of one attempt; they depend on no other attempt."""
        return random.Random(f"{kind} {self.seed} {number}")

    def count(self, kind: str, attempt: str, faults: list[str]) -> None:
        """Count an attempt; with faults it is a failure."""
        row = self.rows.setdefault(kind, Row())
        row.attempts += 1
        if faults:
            row.failures.append(f"{attempt}: {'; '.join(faults)}")

    def skip(self, kind: str, note: str) -> None:
        self.rows.setdefault(kind, Row()).note = note

    def run(self, target: Callable[..., None], *arguments: Any) -> Done:
        """Run a command to its end."""
        return Command(self.folder / "command", target, *arguments).wait()

    def results_of(self, name: str) -> dict[str, bytes]:
        """Return the results of a study that nothing disturbs."""
        if name not in self.right:
            self.right[name] = results(self.template(name) / "run")
        return self.right[name]

    def template(self, name: str) -> Path:
        """Return a folder with the store and the run folder of an undisturbed study: copy it."""
        if name not in self._templates:
            template = self.folder / "templates" / name
            with self._set_aside():  # copies must be where it ran: a store has paths of run folders
                attempt = self.fresh()
                started = time.monotonic()
                done = self.run(study, name, attempt / "run", attempt / "store")
                self.seconds[name] = time.monotonic() - started
                assert done.status == 0, done.err
                template.parent.mkdir(exist_ok=True)
                attempt.rename(template)
            self._templates[name] = template
        return self._templates[name]

    @contextlib.contextmanager
    def _set_aside(self) -> Iterator[None]:
        """Keep the attempt that is under way while another folder takes its place."""
        attempt, aside = self.folder / "attempt", self.folder / "aside"
        is_under_way = attempt.exists()
        if is_under_way:
            attempt.rename(aside)
        yield
        if is_under_way:
            aside.rename(attempt)

    def fresh(self, template: Path | None = None) -> Path:
        """Return the folder of a new attempt, with a copy of a template's store and run folder."""
        attempt = self.folder / "attempt"
        shutil.rmtree(attempt, ignore_errors=True)
        if template is not None:
            shutil.copytree(template, attempt)
        else:
            attempt.mkdir()
        return attempt

    def table(self) -> str:
        """Return a line for each kind of fault, then up to five failures of each."""
        width = max(map(len, self.rows), default=0)
        lines = [f"{'fault':<{width}}  attempts  failures"]
        for kind, row in self.rows.items():
            counts = f"{row.attempts:8,}  {len(row.failures):8,}"
            lines.append(f"{kind:<{width}}  {counts}  {row.note}".rstrip())
        for kind, row in self.rows.items():
            lines += [f"{kind}: {failure}" for failure in row.failures[:5]]
            if len(row.failures) > 5:
                lines.append(f"{kind}: and {len(row.failures) - 5:,} more")
        return "\n".join(lines)
