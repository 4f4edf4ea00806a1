"""Runs in a process of their own that kill themselves, as kill -9 does, at a known moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from lotteryfw import run

table, out, store, trust, steps = json.loads(sys.argv[1])

class Killer:
    left = steps
    def event(self, event): ...
    def warning(self, message): ...
    def progress(self, progress):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

run(table, out=Path(out), store=Path(store), trust=[Path(file) for file in trust], jobs=1, device="cpu",
    checkpoint_seconds=0.0, listener=Killer())
"""


def run_killed(
    table: dict[str, Any], out: Path, store: Path, trust: list[Path], steps: int = -1
) -> None:
    """Run a recipe until the given number of steps is made, or until a component kills the process."""
    arguments = json.dumps([table, str(out), str(store), list(map(str, trust)), steps])
    done = subprocess.run([sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, f"it was not killed:\n{done.stderr}"
