"""Every component of a plugin through its trial: what `lotteryfw check PLUGIN` prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from lotteryfw.api.errors import DataError, LotteryError, PluginError, UsageError, nearest
from lotteryfw.registry import RegisteredComponent, Registry
from lotteryfw.testkit.trials import trial


@dataclass(frozen=True)
class Verdict:
    """How the trial of one component ended; `reason` says why it failed, or why there was none."""

    offer: RegisteredComponent
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""

    @property
    def failed(self) -> bool:
        """True for a component that broke a promise."""
        return self.outcome == "failed"

    def __str__(self) -> str:
        return f"{self.outcome}: {self.offer.kind} {self.offer.full_name}" + (
            f": {self.reason}" if self.reason else ""
        )


def check_plugin(what: str) -> list[Verdict]:
    """The verdicts on all components of a plugin: a file's path, a distribution's or an entry point's name.

    Components are tried with their default options; those that have options without a default, and data sources
    without their files, are skipped. Raises UsageError for a plugin that is not there, PluginError for one that could
    not be loaded.
    """
    is_file = what.endswith(".py")
    registry = Registry.load(trust=[Path(what)] if is_file else [])
    name = canonicalize_name(Path(what).name if is_file else what)
    for failure in registry.failures:
        if name in _names(failure.distribution, failure.plugin):
            raise PluginError(str(failure))
    offers = [
        offer for offer in registry.offers() if name in _names(offer.distribution, offer.plugin)
    ]
    if not offers:
        known = [plugin.distribution for plugin in registry.plugins]
        raise UsageError(f"no plugin that is installed is called '{what}', or it has no components; "
                         f"{nearest(what, known)}")  # fmt: skip
    return [_verdict(offer) for offer in offers]


def _names(distribution: str, plugin: str) -> set[str]:
    return {canonicalize_name(distribution), canonicalize_name(plugin)}


def _verdict(offer: RegisteredComponent) -> Verdict:
    try:
        trial(offer.cls)
    except (UsageError, DataError) as error:
        return Verdict(offer, "skipped", str(error))
    except LotteryError as error:
        return Verdict(offer, "failed", str(error))
    return Verdict(offer, "passed")
