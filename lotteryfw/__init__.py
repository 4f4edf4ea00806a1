"""lotteryfw: lottery-ticket studies as recipes.

This module is the face: everything a plugin may import, and everything a script needs. Names are loaded when they are
first used, so importing it costs nothing and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lotteryfw.component import Component as Component
    from lotteryfw.errors import ContractError as ContractError
    from lotteryfw.errors import DataError as DataError
    from lotteryfw.errors import LotteryError as LotteryError
    from lotteryfw.errors import TrainingDiverged as TrainingDiverged
    from lotteryfw.errors import UsageError as UsageError
    from lotteryfw.events import CellFinished as CellFinished
    from lotteryfw.events import JobFinished as JobFinished
    from lotteryfw.events import LayerCollapsed as LayerCollapsed
    from lotteryfw.events import LevelFinished as LevelFinished
    from lotteryfw.events import RunFinished as RunFinished
    from lotteryfw.events import RunStarted as RunStarted
    from lotteryfw.fingerprints import files_fingerprint as files_fingerprint
    from lotteryfw.hookspecs import hookimpl as hookimpl
    from lotteryfw.kinds import Analysis as Analysis
    from lotteryfw.kinds import Augmentation as Augmentation
    from lotteryfw.kinds import DataSource as DataSource
    from lotteryfw.kinds import Initialiser as Initialiser
    from lotteryfw.kinds import Mask0Action as Mask0Action
    from lotteryfw.kinds import Mask1Action as Mask1Action
    from lotteryfw.kinds import MaskCriterion as MaskCriterion
    from lotteryfw.kinds import ModelFamily as ModelFamily
    from lotteryfw.kinds import Objective as Objective
    from lotteryfw.kinds import Optimizer as Optimizer
    from lotteryfw.kinds import Parametrization as Parametrization
    from lotteryfw.kinds import RewindPolicy as RewindPolicy
    from lotteryfw.kinds import Schedule as Schedule
    from lotteryfw.kinds import Scope as Scope
    from lotteryfw.kinds import Search as Search
    from lotteryfw.kinds import SearchAlgorithm as SearchAlgorithm
    from lotteryfw.rng import stream as stream
    from lotteryfw.runner import Run as Run
    from lotteryfw.runner import export as export
    from lotteryfw.runner import run as run
    from lotteryfw.search.lab import Lab as Lab
    from lotteryfw.select import WarmTop as WarmTop
    from lotteryfw.select import budget as budget
    from lotteryfw.select import straight_through as straight_through
    from lotteryfw.steps import Clock as Clock
    from lotteryfw.steps import Step as Step
    from lotteryfw.store import load_seed_ticket as load_seed_ticket
    from lotteryfw.store import load_ticket as load_ticket
    from lotteryfw.views import LATEST as LATEST
    from lotteryfw.views import Edges as Edges
    from lotteryfw.views import Facts as Facts
    from lotteryfw.views import Finding as Finding
    from lotteryfw.views import Group as Group
    from lotteryfw.views import Layer as Layer
    from lotteryfw.views import Leaf as Leaf
    from lotteryfw.views import Need as Need
    from lotteryfw.views import Recorded as Recorded
    from lotteryfw.views import RewindPoint as RewindPoint
    from lotteryfw.views import Scored as Scored
    from lotteryfw.views import Split as Split
    from lotteryfw.views import Splits as Splits
    from lotteryfw.views import Ticket as Ticket
    from lotteryfw.views import Trained as Trained

_HOMES = {
    "component": ("Component",),
    "errors": ("ContractError", "DataError", "LotteryError", "TrainingDiverged", "UsageError"),
    "events": ("CellFinished", "JobFinished", "LayerCollapsed", "LevelFinished", "RunFinished", "RunStarted"),
    "fingerprints": ("files_fingerprint",),
    "hookspecs": ("hookimpl",),
    "kinds": (
        "Analysis", "Augmentation", "DataSource", "Initialiser", "Mask0Action", "Mask1Action", "MaskCriterion",
        "ModelFamily", "Objective", "Optimizer", "Parametrization", "RewindPolicy", "Schedule", "Scope", "Search",
        "SearchAlgorithm",
    ),
    "search.lab": ("Lab",),
    "rng": ("stream",),
    "runner": ("Run", "export", "run"),
    "select": ("WarmTop", "budget", "straight_through"),
    "steps": ("Clock", "Step"),
    "store": ("load_seed_ticket", "load_ticket"),
    "views": (
        "LATEST", "Edges", "Facts", "Finding", "Group", "Layer", "Leaf", "Need", "Recorded", "RewindPoint", "Scored",
        "Split", "Splits", "Ticket", "Trained",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"lotteryfw has no '{name}'; it offers {', '.join(__all__)}")
    value = getattr(import_module(f"lotteryfw.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
