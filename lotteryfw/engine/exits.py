"""What `sys.exit` in a component becomes: an error that names the component, as any other that it raises."""

from __future__ import annotations

import traceback
from types import FrameType

from lotteryfw.api.component import Component
from lotteryfw.api.errors import PluginError


def exit_error(error: SystemExit) -> PluginError:
    """Return the error to report for a `sys.exit` that was called while a component was used.

    The component is the one whose method was running, as far as the traceback tells.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    where = "a component, or what it called,"
    for frame in reversed(frames):
        if name := _component(frame):
            where = f"{name} in {frame.f_code.co_name}()"
            break
    found = PluginError(
        f"{where} called sys.exit({error.code!r}); it must raise an exception instead"
    )
    found.__cause__ = error
    return found


def _component(frame: FrameType) -> str:
    """The kind and name of the component whose method a frame runs, or nothing."""
    owner = frame.f_locals.get("self")
    return f"{owner.kind} '{owner.use}'" if isinstance(owner, Component) else ""
