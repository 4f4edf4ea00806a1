"""The provenance of a run: when, by which command, from which code and on which machine it ran."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

MOST_INVOCATIONS = 100
"""A manifest lists at most so many invocations: the first, and the latest of the others."""

_GIT_SECONDS = 10
_PACKAGES = ("lotteryfw", "torch", "torchvision", "numpy", "pydantic", "pluggy", "safetensors")


class Invocation:
    """One call of `run` for a run's folder, as manifest.json lists it.

    A run that was stopped and continued has several. `computed` counts the jobs that this one
    computed, which were not in the store.
    """

    def __init__(self, sources: Sequence[Path], overrides: Sequence[str], device: str):
        """`sources` are the recipe's file and the trusted plugin files, as far as there are any."""
        self.computed = 0
        self._started = time.monotonic()
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        self._facts = {
            "command": command_line(),
            "overrides": list(overrides),
            "git": git_state(sources),
            "machine": machine(device),
            "versions": versions(),
        }

    def plain(self) -> dict[str, Any]:
        """Return the invocation as plain data; `seconds` are those until now."""
        return {
            "date": self._date,
            "seconds": round(time.monotonic() - self._started, 1),
            "computed": self.computed,
            **self._facts,
        }


def listed(earlier: Sequence[Any], invocation: Invocation) -> list[Any]:
    """Return the invocations of a run for its manifest, the oldest first."""
    lines = [*earlier, invocation.plain()]
    if len(lines) <= MOST_INVOCATIONS:
        return lines
    # the first one says when and with what the run began, whatever came later
    return [lines[0], *lines[1 - MOST_INVOCATIONS :]]


def command_line() -> str:
    """Return the command of this process as a shell reads it, without the folders of programs."""
    words = list(sys.orig_argv)
    if words:
        words[0] = Path(words[0]).name
    # an installed command is a script that Python runs: people type its name alone
    if len(words) > 1 and Path(words[1]).stem == "lotteryfw":
        words = ["lotteryfw", *words[2:]]
    return shlex.join(words)


def git_state(sources: Sequence[Path]) -> dict[str, Any] | None:
    """Return commit and state of the repository that the first source lies in; None without one.

    Without sources it is the repository of the working directory. `clean` is true if no tracked
    file is changed and git tracks every source that lies in the repository.
    """
    folder = sources[0].resolve().parent if sources else Path.cwd()
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    if root is None or commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    clean = changed == ""
    for source in sources:
        path = source.resolve()
        # a plugin file elsewhere is not this repository's; its content is part of the keys
        if path.is_relative_to(Path(root)):
            clean = clean and _git(folder, "ls-files", "--error-unmatch", str(path)) is not None
    return {"commit": commit, "clean": clean}


def _git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints; None where it fails, or where there is no git."""
    try:
        done = subprocess.run(
            # without locks: another process may commit at the same time
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


@cache
def machine(device: str) -> dict[str, Any]:
    """Return the system, the processor and the accelerator, without names of hosts or people."""
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
    }
    model = _processor_model(Path("/proc/cpuinfo")) or platform.processor()
    if model:
        facts["processor model"] = model
    # Only here, since the import takes seconds and a CPU has no such name.
    if device == "cuda":
        import torch

        facts["GPU"] = torch.cuda.get_device_name()
    return facts


def _processor_model(cpuinfo: Path) -> str:
    try:
        text = cpuinfo.read_text("utf-8", errors="replace")
    except OSError:
        return ""  # no Linux
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""


# importlib.metadata reads from the disk at each call, 3 ms a name, and the manifest is written often
@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
