"""The command line's door: all commands together, and how errors reach people."""

from __future__ import annotations

import sys

from lotteryfw.cli import components, stores, studies  # noqa: F401  # importing them adds their commands
from lotteryfw.cli.app import app
from lotteryfw.errors import LotteryError


def main() -> None:
    """Runs the command line. A user's mistake ends with a message on stderr and exit code 2, never a traceback."""
    try:
        app()
    except LotteryError as error:
        faults = getattr(error, "faults", ())
        many = f" ({len(faults)} faults)" if len(faults) > 1 else ""
        print(f"error{many}: {error}" if len(faults) < 2 else f"error{many}:\n{error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
