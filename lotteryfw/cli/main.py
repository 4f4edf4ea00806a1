"""Runs the command line: puts all commands together, and turns errors into messages."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from lotteryfw.cli import signals

_OUTPUT = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF)
"""Errors of writing to a file that is open, as stdout is."""


def main() -> None:
    """Run the command line.

    A user's mistake ends with a message on stderr and exit code 2, never with a traceback.
    """
    try:
        signals.install()
        _main()
    except signals.StopNow:
        signals.say_stopped()
        sys.exit(130)
    except Exception:
        if not signals.is_asked():
            raise
        # an import that a signal interrupted may end with an error of its own
        signals.say_stopped()
        sys.exit(130)


def _main() -> None:
    # Imported here, so that a signal that comes meanwhile ends with a line and no traceback. The
    # modules of the commands add these to the app.
    from lotteryfw.api.errors import LotteryError
    from lotteryfw.cli import components, init, machine, reports, runs, stores, studies  # noqa: F401
    from lotteryfw.cli.app import add_examples, app

    add_examples()

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a file's name need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            # here, where its failure can be reported, and not as the process ends
            sys.stdout.flush()
    except LotteryError as error:
        if error.exit_code == 130:
            signals.say_stopped()
            sys.exit(error.exit_code)
        faults = getattr(error, "faults", ())
        # several faults have a line each
        start = f"error ({len(faults)} faults):\n" if len(faults) > 1 else "error: "
        _end(f"{start}{error}", error.exit_code)
    except OSError as error:
        _end(_describe(error), 1)


def _describe(error: OSError) -> str:
    """Return a line about an error of the system; empty if the reader of a pipe has closed it."""
    from lotteryfw.api.errors import printable

    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"error: {printable(str(error.filename), 300)}: {reason}"
    if error.errno not in _OUTPUT:
        return f"error: {reason}"
    # Python flushes once more as it ends, and would complain again
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "" if error.errno == errno.EPIPE else f"error: the output cannot be written: {reason}"


def _end(message: str, code: int) -> None:
    with suppress(OSError):  # stderr may be full as well
        if message:
            print(message, file=sys.stderr)
    sys.exit(code)
