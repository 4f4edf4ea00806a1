"""Make a plain checkout usable as if it were installed: entry points and versions, read from pyproject.toml."""

from __future__ import annotations

import os
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe_packages(folder: Path) -> None:
    """Put metadata of lotteryfw, and of torchvision where it is missing, on the import path.

    Subprocesses inherit it. Components are registered through entry points, and runs record the versions of these
    packages, so both need metadata, which a checkout on PYTHONPATH does not have.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    added = False

    if not _is_installed("lotteryfw"):
        points = []
        for group, entries in project["entry-points"].items():
            points.append(f"[{group}]")
            points += [f"{name} = {target}" for name, target in entries.items()]
        _write(folder, "lotteryfw", project["version"], "\n".join(points))
        added = True
    if not _is_installed("torchvision"):
        _write(folder, "torchvision", "0", "")
        added = True

    _prepend(ROOT)
    if added:
        _prepend(folder)


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _write(folder: Path, name: str, number: str, entry_points: str) -> None:
    info = folder / f"{name}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    (info / "entry_points.txt").write_text(entry_points)


def _prepend(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder) + (os.pathsep + inherited if inherited else "")
