"""Tries every component of a plugin, for `lotteryfw check PLUGIN`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from lotteryfw.api.errors import DataError, LotteryError, PluginError, UsageError, nearest
from lotteryfw.registry import RegisteredComponent, Registry, file_plugin, plugin_names
from lotteryfw.testkit.component_trial import Skipped
from lotteryfw.testkit.trials import make_component, try_component


@dataclass(frozen=True)
class Verdict:
    """The end of a component's trial; `reason` says why it failed, or why there was none."""

    component: RegisteredComponent
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""

    @property
    def failed(self) -> bool:
        """True for a component that broke a promise."""
        return self.outcome == "failed"

    def __str__(self) -> str:
        text = f"{self.outcome}: {self.component.kind} {self.component.full_name}"
        return f"{text}: {self.reason}" if self.reason else text


def check_plugin(name: str) -> list[Verdict]:
    """Return the verdicts on all components of a plugin.

    `name` is the path of a plugin file, or the name of a distribution or an entry point. Components
    are tried with their default options; those that have options without a default, and data sources
    without their files, are skipped. Raises UsageError if there is no such plugin, PluginError if it
    could not be loaded.
    """
    is_file = name.endswith(".py")
    # an installed plugin is there without being trusted
    path = Path(name)
    registry = Registry.load(trust=[path] if is_file else [])
    wanted = canonicalize_name(file_plugin(path).distribution if is_file else name)
    for failure in registry.failures:
        if wanted in plugin_names(failure.plugin, failure.distribution):
            raise PluginError(str(failure))

    verdicts = []
    for component in registry.offers():
        if wanted in plugin_names(component.plugin, component.distribution):
            verdicts.append(_try(component))
    if not verdicts and is_file:
        raise UsageError(
            f"{name}: has no components to try; its functions are checked with a recipe that names "
            f"them: lotteryfw plan RECIPE --trust {shlex.quote(name)}"
        )
    if not verdicts:
        raise UsageError(_why_nothing(name, registry))
    return verdicts


def _why_nothing(name: str, registry: Registry) -> str:
    """Return why there is no component to try of an installed plugin."""
    for plugin in registry.plugins:
        if canonicalize_name(name) in plugin_names(plugin.name, plugin.distribution):
            return f"the plugin '{name}' has no components to try"
    distributions = [plugin.distribution for plugin in registry.plugins]
    return f"no plugin that is installed is called '{name}'; {nearest(name, distributions)}"


def _try(component: RegisteredComponent) -> Verdict:
    try:
        made = make_component(component.cls)
    except (UsageError, DataError) as error:
        # options without a default, or files that they are checked against: nothing was tried
        return Verdict(component, "skipped", str(error))
    except LotteryError as error:
        return Verdict(component, "failed", str(error))
    try:
        try_component(made)
    except Skipped as error:
        return Verdict(component, "skipped", str(error))
    except LotteryError as error:
        # a UsageError too: a component with its defaults is refused by what it has to work with
        return Verdict(component, "failed", str(error))
    return Verdict(component, "passed")
