"""The command line's door: all commands together, and how errors reach people."""

from __future__ import annotations

import sys

from lotteryfw.cli import signals


def main() -> None:
    """Runs the command line. A user's mistake ends with a message on stderr and exit code 2, never a traceback."""
    try:
        signals.install()
        _main()
    except signals.StopNow:
        signals.say_stopped()
        sys.exit(130)
    except Exception:
        if not signals.is_asked():
            raise
        signals.say_stopped()  # an import that a signal interrupted may end with an error of its own
        sys.exit(130)


def _main() -> None:
    # Imported here, so that a signal that comes meanwhile ends with a line and no traceback.
    from lotteryfw.cli import components, stores, studies  # noqa: F401  # importing them adds their commands
    from lotteryfw.cli.app import app
    from lotteryfw.errors import LotteryError

    try:
        app()
    except LotteryError as error:
        if error.exit_code == 130:
            signals.say_stopped()
            sys.exit(error.exit_code)
        faults = getattr(error, "faults", ())
        many = f" ({len(faults)} faults)" if len(faults) > 1 else ""
        print(f"error{many}: {error}" if len(faults) < 2 else f"error{many}:\n{error}", file=sys.stderr)
        sys.exit(error.exit_code)
