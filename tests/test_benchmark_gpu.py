"""benchmarks/gpu.py at a tiny size on the CPU, from a checkout that is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.paths import ROOT


def packages_without_lotteryfw(folder: Path) -> Path:
    """A folder of links to all installed packages but lotteryfw and what says that it is installed."""
    folder.mkdir()
    for library in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(library).iterdir():
            if "lotteryfw" not in path.name and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.large
def test_every_part_runs_from_a_plain_checkout(tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    packages = packages_without_lotteryfw(tmp_path / "packages")
    environment = os.environ | {
        "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-S", "benchmarks/gpu.py", "--tiny", "--json", str(rows_file)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    rows = json.loads(rows_file.read_text())
    assert {row["part"] for row in rows} == {
        "device", "captured", "lockstep", "convs", "precision", "ensemble", "memory",
        "compiled", "suite", "host_waits", "parity", "edge_popup", "study"
    }  # fmt: skip
    assert not [row for row in rows if row["value"] == "FAILED"]
    equal = {row["what"]: row["value"] for row in rows if row["part"] == "parity"}
    assert equal["device twice: equal mask bits"] == 1.0
