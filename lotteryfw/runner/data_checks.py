"""Checks before any training that the data of a recipe is there, and that results are keyed by it."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import ContractError, DataError, Fault, LotteryError, naming
from lotteryfw.api.fingerprints import fingerprint_of
from lotteryfw.api.kinds import DataSource
from lotteryfw.recipe import Recipe

_SHOWN = 4
"""Missing files that a message names."""


def check_data(recipe: Recipe, folder: Path) -> tuple[list[Fault], list[str]]:
    """Return a fault for each data source whose data is not there, and warnings of missing keys.

    A source that names its files is not read; another is, and a warning says which file it read
    without having a fingerprint. Imports torch.
    """
    faults: dict[Fault, None] = {}
    warnings: dict[str, None] = {}
    checked: set[int] = set()
    for cell in recipe.cells:
        sources = [(cell.data, recipe.place(cell.study, "data"))]
        sources += [(target.cell.data, target.written_at) for target in cell.targets]
        for data, written_at in sources:
            # The cells of a study share their source objects.
            if id(data) in checked:
                continue
            checked.add(id(data))
            try:
                warnings |= dict.fromkeys(_check_source(data, folder))
                warnings |= dict.fromkeys(_own_warnings(data, folder))
            except LotteryError as error:
                faults[Fault(*written_at, str(error))] = None
    return list(faults), list(warnings)


def _check_source(source: DataSource, folder: Path) -> Iterator[str]:
    """Yield warnings. Raises DataError where the data is not there, PluginError where it breaks."""
    files = _call(source, "files", folder)
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        # A source's own message says how its files are to be had.
        _call(source, "load", folder)
        names = ", ".join(map(str, missing[:_SHOWN]))
        raise DataError(f"data '{source.use}' is not there: {len(missing)} files, such as {names}")
    if files or fingerprint_of(source, folder):
        return
    with _opened_files() as opened:
        _call(source, "load", folder)
    if opened:
        yield (
            f"data '{source.use}' reads {opened[0]} and has no fingerprint: results would not "
            "notice other content in that file; give it a method `files(folder)`, which returns "
            "the paths that it reads"
        )


def _own_warnings(source: DataSource, folder: Path) -> Sequence[str]:
    """Return the warnings of a source's own check. Raises ContractError for anything else."""
    warnings: object = _call(source, "check", folder)
    if isinstance(warnings, list | tuple) and {str}.issuperset(map(type, warnings)):
        return warnings
    raise ContractError(
        f"data '{source.use}': check() returned {warnings!r}; it must return a list of texts"
    )


def _call(source: DataSource, method: str, folder: Path) -> Any:
    with naming(f"data '{source.use}'", f"{method}()"):
        return getattr(source, method)(folder)


# The files that are read while a data source loads

_recording: list[list[str]] = []
"""The lists that the audit hook adds to: a hook stays for the life of the process."""
_installed: list[bool] = []


@contextmanager
def _opened_files() -> Iterator[Sequence[str]]:
    """Yield a list that receives the data files opened meanwhile, other than Python's own."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_note)
    opened: list[str] = []
    _recording.append(opened)
    try:
        yield opened
    finally:
        _recording.remove(opened)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _recording:
        return
    path, _, flags = arguments
    if not isinstance(path, str) or (flags & (os.O_WRONLY | os.O_RDWR)):
        return
    absolute = os.path.realpath(path)
    if absolute.startswith(_OF_PYTHON) or absolute.endswith((".py", ".pyc", ".so")):
        return
    if os.path.isfile(absolute) and absolute not in _recording[-1]:
        _recording[-1].append(absolute)


def _python_folders() -> tuple[str, ...]:
    """Return the folders of Python, of the system's own files, and of what is installed."""
    folders = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    # /proc and /etc: libraries look at the machine when they are first imported.
    folders |= {"/proc", "/sys", "/etc", "/dev", str(Path(__file__).parents[1])}
    return tuple(os.path.realpath(folder) + os.sep for folder in folders if len(folder) > 1)


_OF_PYTHON = _python_folders()
