"""The hooks of one plugin: what it has to implement, and the components that it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from lotteryfw.api.component import Component
from lotteryfw.api.errors import nearest
from lotteryfw.registry.plugins import Refused


def check_hooks(manager: pluggy.PluginManager, module: object, is_file: bool) -> None:
    """Raise Refused for a plugin without a hook, or with one that nobody specified.

    A file may have functions alone, which recipes name.
    """
    callers = manager.get_hookcallers(module)
    hooks = [name for name, caller in vars(manager.hook).items() if caller.has_spec()]
    if not callers:
        # A file of functions that recipes name is no plugin.
        if is_file and _has_functions_alone(module, hooks):
            return
        raise Refused("it implements no hook; mark its functions with @hookimpl")
    try:
        # raises for an implementation of a hook that nobody specified: a misspelt name
        manager.check_pending()
    except pluggy.PluginValidationError:
        unknown = next(caller.name for caller in callers if not caller.has_spec())
        raise Refused(f"there is no hook '{unknown}'; {nearest(unknown, hooks)}") from None


def component_classes(manager: pluggy.PluginManager, module: object) -> list[Any]:
    """Return what a plugin's `register_components` returns. Raises Refused for no classes."""
    classes: list[Any] = []
    # not by calling the hook: pluggy drops None, and so would hide a forgotten `return`
    for implementation in manager.hook.register_components.get_hookimpls():
        if implementation.plugin is module:
            result = implementation.function()
            if not isinstance(result, Iterable):
                raise Refused(f"must return component classes, returned {result!r}")
            classes += result
    return classes


def function_of(implementation: pluggy.HookImpl) -> Callable[[Any], object]:
    """Return the implementation of a hook of one argument as a function that takes it."""
    function = implementation.function
    # pluggy lets an implementation leave arguments out
    return function if implementation.argnames else lambda argument: function()


def _has_functions_alone(module: object, hooks: Iterable[str]) -> bool:
    """Return whether a file has functions or classes, and no sign of a plugin without its marker.

    Such a sign is a component class, or a function with the name of one of the `hooks`.
    """
    names = vars(module)
    if not names.keys().isdisjoint(hooks):
        return False
    functions = [value for value in names.values() if callable(value)]
    # also imported: a plugin imports its kind, and its component may be misspelt
    components = [
        item for item in functions if isinstance(item, type) and issubclass(item, Component)
    ]
    return bool(functions) and not components
