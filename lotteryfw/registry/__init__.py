"""Loads plugins and registers their components, the built-in ones like all others."""

from lotteryfw.registry.components import RegisteredComponent
from lotteryfw.registry.plugins import (
    WITHOUT,
    BrokenFile,
    Failure,
    Plugin,
    file_plugin,
    plugin_names,
)
from lotteryfw.registry.registry import Registry

__all__ = [
    "WITHOUT",
    "BrokenFile",
    "Failure",
    "Plugin",
    "RegisteredComponent",
    "Registry",
    "file_plugin",
    "plugin_names",
]
