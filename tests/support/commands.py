"""The command line, run in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

QUICK = """
name = "tiny"
seeds = [0, 1]
data = {{ use = "synthetic", examples = 330, classes = 3, shape = [1, 4, 4], noise = 0.5 }}
model = {{ use = "mlp", hidden = [8, 6] }}
search = {{ use = "imp", levels = 2 }}
{more}
[train]
length = "{length}"
batch = 16
optimizer = {{ use = "sgd", lr = 0.1 }}
"""


def environment(here: Path, **more: str) -> dict[str, str]:
    named = {
        "LOTTERYFW_STORE": str(here / "store"),
        "LOTTERYFW_DATA": str(here / "data"),
        "COLUMNS": "100",
    }
    return {**os.environ, "OMP_NUM_THREADS": "1", **named, **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from lotteryfw.cli import main; main()", *words]
