"""The pipe between a run and a worker process: how its end gets into the new process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection

    def _options(handle: int) -> dict[str, object]:
        # the handle alone is inherited, as `pass_fds` does elsewhere
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        return {"startupinfo": startup, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def open_pipe(number: int) -> PipeConnection:
        """Return the worker's end of the pipe, by the number in its arguments."""
        return PipeConnection(number)

    def kill(process: subprocess.Popen[bytes]) -> None:
        """End a worker process that does not answer."""
        process.kill()

else:

    def _options(handle: int) -> dict[str, object]:
        return {"pass_fds": [handle], "start_new_session": True}

    def open_pipe(number: int) -> Connection:
        """Return the worker's end of the pipe, by the number in its arguments."""
        # a process that a component starts must not keep the pipe open after the worker's end
        os.set_inheritable(number, False)
        return Connection(number)

    def kill(process: subprocess.Popen[bytes]) -> None:
        """End a worker process that does not answer, with the processes that it started."""
        # it leads a session of its own
        os.killpg(process.pid, signal.SIGKILL)


def start(
    command: Sequence[str], theirs: Connection, environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a worker with its end of a pipe, whose number is added to the command.

    It has a session of its own: Ctrl-C is for the run, which asks its workers to stop.
    """
    handle = theirs.fileno()
    process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
        [*command, str(handle)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=dict(environment),
        **_options(handle),
    )
    return process
