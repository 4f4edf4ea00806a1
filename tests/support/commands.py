"""The command line, run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.fork_server import ForkServer

_SERVER = ForkServer()
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
PLUGIN = """
from lotteryfw import MaskCriterion, hookimpl

class Broken(MaskCriterion):
    "Breaks."
    use = "broken"
    def score(self, layer):
        raise ZeroDivisionError("no luck")

@hookimpl
def register_components():
    return [Broken]

@hookimpl
def register_commands(app):
    @app.command()
    def hello():
        print("hello from a plugin")
"""
"""A plugin whose criterion breaks in a run, and which adds a command."""


def environment(here: Path, **more: str) -> dict[str, str]:
    """Return the variables of a command that runs in this folder."""
    named = {
        "LOTTERYFW_STORE": str(here / "store"),
        "LOTTERYFW_DATA": str(here / "data"),
        "COLUMNS": "100",
    }
    return {**os.environ, "OMP_NUM_THREADS": "1", **named, **more}


def command(*words: str) -> list[str]:
    """Return the command that runs a command line with this Python."""
    return [sys.executable, "-c", "from lotteryfw.cli import main; main()", *words]


def cli(here: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder, in a process of its own."""
    variables = environment(here, **more)
    # an interpreter reads PYTHONPATH and the like as it starts
    if hasattr(os, "fork") and not any(name.startswith("PYTHON") for name in more):
        return _SERVER.run(list(words), here, variables)
    return subprocess.run(command(*words), cwd=here, env=variables, capture_output=True, text=True)


def refused(here: Path, *words: str, **more: str) -> str:
    """Return the message of a command that ends with a user's mistake, before anything is trained."""
    done = cli(here, *words, **more)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "store" / "objects").exists()
    return done.stderr
