"""The start of every command about a recipe: registry, recipe, store and folders, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.errors import RecipeError, StoreError, UsageError
from lotteryfw.api.steps import Clock
from lotteryfw.engine import EngineContext, KernelDispatcher, engine_version
from lotteryfw.recipe import Recipe, load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner.chosen_levels import absent_levels
from lotteryfw.runner.claim_levels import missing_levels
from lotteryfw.runner.data_checks import check_data
from lotteryfw.runner.device_memory import refuse_too_large
from lotteryfw.runner.network_checks import network_faults
from lotteryfw.runner.network_table import NetworkTable, network_tables
from lotteryfw.runner.plan import Plan, plan
from lotteryfw.runner.search_checks import broken_searches, kernel_faults, search_faults
from lotteryfw.runner.step_times import measure_costs
from lotteryfw.runner.unused_parts import UnusedParts
from lotteryfw.search.jobs import Spec
from lotteryfw.store import Store, default_root, file_name

_OTHER_STORE = "name another folder with --store or LOTTERYFW_STORE"


def default_data_folder() -> Path:
    """Return the default folder of data sets: $LOTTERYFW_DATA, or one in the user's cache."""
    if named := os.environ.get("LOTTERYFW_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("lotteryfw") / "data"


def _plugin_files(trust: Sequence[Path | str]) -> tuple[Path, ...]:
    """Return trusted plugin files and modules as paths. Raises UsageError for anything else."""
    if isinstance(trust, str | Path):
        trust = [trust]
    for path in trust:
        if not isinstance(path, str | Path):
            raise UsageError(
                f"trust: must be paths of plugin files or names of modules, got {path!r}"
            )
    return tuple(map(Path, trust))


def _store(root: Path) -> Store:
    """Return the store in a folder. Raises UsageError where no store can be there."""
    try:
        return Store(root)
    except (StoreError, UsageError) as error:
        raise UsageError(f"{error} (the store: {_OTHER_STORE})") from error


class StudyContext:
    """The registry, recipe, store and folders that the commands about one recipe share.

    Making one trains nothing. It raises RecipeError with all faults, UsageError, StoreError,
    PluginError.
    """

    def __init__(
        self,
        source: Path | str | Mapping[str, Any],
        *,
        profile: str | None = None,
        sets: Sequence[str] = (),
        studies: Sequence[str] = (),
        trust: Sequence[Path | str] = (),
        components: Sequence[type[Component]] = (),
        data: Path | str | None = None,
        store: Path | str | None = None,
    ):
        self.trust = _plugin_files(trust)
        self.registry = Registry.load(self.trust)
        self.registry.add_session(components)
        self.overrides = (*sets, *(f"study={name}" for name in studies))
        self.data_folder = Path(data) if data else default_data_folder()
        self.store = _store(Path(store) if store else default_root())
        self.recipe: Recipe = load_recipe(
            source, self.registry, data_folder=self.data_folder, profile=profile, sets=sets,
            studies=studies,
        )  # fmt: skip
        # any built-in component names the state of lotteryfw's code
        self.engine = engine_version(
            self.registry.find("objective", "lotteryfw/classification").provider
        )
        self.warnings: list[str] = list(self.registry.warnings)
        """What the checks found that does not prevent a run."""
        self._specs: dict[tuple[int, int, int], tuple[Component, Spec]] = {}

    def require_store(self) -> None:
        """Make the store's folder. Raises UsageError where nothing can be written there.

        A store that is there may be read alone: it may have all results, and where it has not, the
        first job that is to be stored fails with a message.
        """
        root = self.store.root
        try:
            root.mkdir(parents=True, exist_ok=True)
            # Rights are not enough: a disk may be mounted to be read alone.
            with TemporaryFile(dir=root):
                pass
        except OSError as error:
            if any(self.store.aliases()):
                return
            raise UsageError(
                f"{root}: the store cannot be written: {error.strerror or error}; {_OTHER_STORE}"
            ) from error

    def describe(self, component: Component, clock: Clock) -> Spec:
        """Return a component as jobs name it."""
        index = (id(component), clock.total, clock.steps_per_epoch)
        if index not in self._specs:
            offer = self.registry.offer_of(component)
            spec = Spec(
                offer.kind,
                offer.full_name,
                self.registry.provider_of(component),
                self.registry.options_for_job(component, clock),
            )
            # The component is kept with its spec, so that no other object gets its id.
            self._specs[index] = (component, spec)
        return self._specs[index][1]

    def provider(self, component: Component) -> str:
        """Return the distribution that a component comes from, and its version."""
        return self.registry.provider_of(component)

    def plan(self, device: str = "cpu", measure: bool = False) -> Plan:
        """Return the jobs that the recipe asks for. Does not import torch, unless it is to `measure`.

        Then a few steps of each kind of training are made, so that the time and the disk space are
        known. Without, they are those of the longest training of each kind that the store has.
        """
        cells = self.recipe.cells
        costs: dict[str, tuple[float, int]] = {}
        if measure:
            costs = measure_costs(cells, self.describe, self.registry, self.data_folder, device)
        return plan(cells, self.describe, self.store, self.data_folder, device, self.engine, costs)

    def networks(self) -> list[NetworkTable]:
        """Return the layers, parameters and densities of the recipe's networks. Imports torch."""
        return network_tables(self.recipe.cells, self.describe, self.registry, self.data_folder)

    def validate(self, device: str) -> None:
        """Raise RecipeError, UsageError or DataError for whatever shows before any training."""
        self.validate_parts()
        self.validate_models(device)
        self.validate_data()

    def validate_searches(self, device: str) -> None:
        """Raise RecipeError for searches that break as they are planned.

        A run does not call this: there such a search ends its own cells alone.
        """
        faults = broken_searches(self.recipe, self.plan(device).broken)
        if faults:
            raise RecipeError(faults)

    def validate_parts(self) -> None:
        """Raise RecipeError for axes and components that have no effect. Does not import torch."""
        unused = UnusedParts(self.recipe, self.describe, self.data_folder)
        if unused.faults:
            raise RecipeError(unused.faults)
        self.warnings += unused.warnings

    def validate_data(self) -> None:
        """Raise RecipeError for data that is not there, with the place and key of its source."""
        faults, warnings = check_data(self.recipe, self.data_folder)
        if faults:
            raise RecipeError(faults)
        self.warnings += warnings

    def validate_precision(self, device: str) -> None:
        """Raise UsageError for a precision that the device does not train in."""
        for cell in self.recipe.cells:
            if cell.precision == "fp16" and device == "cpu":
                raise UsageError(
                    f"cell '{cell.id}': train.precision = \"fp16\" needs a CUDA device, and this "
                    'run is on the CPU; set "bf16" or "float32", or run with --device cuda'
                )

    def validate_memory(self, device: str, processes: int = 1) -> None:
        """Raise UsageError for a training that does not fit into the device's memory.

        `processes` share a device. Nothing is refused where the memory is not known, as on a CPU.
        """
        from lotteryfw.engine.memory import device_bytes

        available = device_bytes(device)
        if available is None:
            return
        cells = self.recipe.cells
        refuse_too_large(
            cells, self.describe, self.registry, self.data_folder, available, processes
        )

    @property
    def devices(self) -> int:
        """The most devices that any of its trainings is made on."""
        return max((cell.devices for cell in self.recipe.cells), default=1)

    def validate_models(self, device: str) -> None:
        """Raise RecipeError for what only the networks show.

        That is: models that do not fit their data, budgets that leave no weights, patterns that
        name no layer, levels that claims, targets, controls or analyses name and no search has, and
        kernels that cannot train what they are to train.
        """
        misfits = network_faults(self.recipe, self.describe, self.data_folder, device)
        if misfits:
            raise RecipeError(misfits)
        faults, warnings = search_faults(self.recipe, self.describe, self.data_folder, device)
        if faults:
            raise RecipeError(faults)
        self.warnings += warnings
        faults = missing_levels(self.recipe, self.describe, self.data_folder, device)
        faults += absent_levels(self.recipe, self.describe, self.data_folder, device)
        if faults:
            raise RecipeError(faults)
        choose = KernelDispatcher(
            EngineContext(self.registry, self.data_folder, device, self.store)
        )
        faults = kernel_faults(self.recipe, self.describe, self.data_folder, device, choose)
        if faults:
            raise RecipeError(faults)

    def default_out(self) -> Path:
        """Return runs/NAME-DIGEST, so that the same command finds its own run again."""
        profile = [file_name(self.recipe.profile)] if self.recipe.profile else []
        parts = [self.recipe.name, *profile, self.recipe.digest[:8]]
        return Path("runs") / "-".join(parts)
