"""What every command about a recipe starts with: registry, recipe, store and folders, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.errors import RecipeError
from lotteryfw.api.steps import Clock
from lotteryfw.engine import Chooser, Workshop, engine_version
from lotteryfw.recipe import Recipe, load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner.claim_levels import missing_levels
from lotteryfw.runner.plan import Plan, plan, refuse_empty
from lotteryfw.search.jobs import Spec
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store, default_root, file_name


def default_data_folder() -> Path:
    """Where data sets are looked for unless a command says otherwise: $LOTTERYFW_DATA, or the user's cache folder."""
    if named := os.environ.get("LOTTERYFW_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("lotteryfw") / "data"


class Desk:
    """What the commands about one recipe share: registry, recipe, store, folders, device. Nothing is trained by it.

    Raises RecipeError with all faults, UsageError, StoreError, PluginError.
    """

    def __init__(
        self,
        source: Path | str | Mapping[str, Any],
        *,
        profile: str | None = None,
        sets: Sequence[str] = (),
        trust: Sequence[Path] = (),
        data: Path | None = None,
        store: Path | None = None,
    ):
        self.registry = Registry.load(list(trust))
        self.trust = tuple(trust)
        self.data_folder = data or default_data_folder()
        self.store = Store(store or default_root())
        self.recipe: Recipe = load_recipe(
            source, self.registry, data_folder=self.data_folder, profile=profile, sets=sets
        )
        # any built-in component names the state of lotteryfw's code
        self.engine = engine_version(
            self.registry.find("objective", "lotteryfw/classification").provider
        )
        self._specs: dict[tuple[int, int, int], tuple[Component, Spec]] = {}

    def describe(self, component: Component, clock: Clock) -> Spec:
        """A component as jobs name it."""
        place = (id(component), clock.total, clock.steps_per_epoch)
        if place not in self._specs:  # the component is kept with its spec, so its id stays its own
            offer = self.registry.offer_of(component)
            spec = Spec(offer.kind, offer.full_name, offer.provider, component.options(clock))
            self._specs[place] = (component, spec)
        return self._specs[place][1]

    def plan(self, device: str = "cpu") -> Plan:
        """What the recipe asks for. Does not import torch."""
        return plan(
            self.recipe.cells, self.describe, self.store, self.data_folder, device, self.engine
        )

    def refuse_impossible(self, device: str) -> None:
        """Raises UsageError for what only networks tell: budgets that leave no weights, patterns that name no layer,
        a kernel that cannot train the dense network. Raises RecipeError for claims about levels that no search has."""
        cells = self.recipe.cells
        refuse_empty(cells, self.describe, self.data_folder, device)
        faults = missing_levels(self.recipe, self.describe, self.data_folder, device)
        if faults:
            raise RecipeError(faults)
        choose = Chooser(Workshop(self.registry, self.data_folder, device, self.store))
        for cell in {(cell.kernel, id(cell.model), id(cell.data)): cell for cell in cells}.values():
            if cell.kernel != "auto":
                lab = CellLab(cell, self.describe, self.data_folder, device, choose)
                lab.job(lab.dense())

    def default_out(self) -> Path:
        """runs/NAME-DIGEST: one folder for one resolved recipe, so the same command finds its own run again."""
        profile = [file_name(self.recipe.profile)] if self.recipe.profile else []
        parts = [self.recipe.name, *profile, self.recipe.digest[:8]]
        return Path("runs") / "-".join(parts)
