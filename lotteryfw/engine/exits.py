"""The error that stands for a `sys.exit` in a component."""

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
    plugin_error = PluginError(
        f"{where} called sys.exit({error.code!r}); it must raise an exception instead"
    )
    plugin_error.__cause__ = error
    return plugin_error


def _component(frame: FrameType) -> str:
    """Return the kind and name of the component whose method a frame runs; "" for none."""
    owner = frame.f_locals.get("self")
    return f"{owner.kind} '{owner.use}'" if isinstance(owner, Component) else ""
