"""Loads plugins from entry points and registers their components, the built-in ones like all others.

A plugin that fails to load is recorded in `Registry.failures`, and the others work.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from lotteryfw.api import hookspecs
from lotteryfw.api.code_files import Code, code_of, code_of_file
from lotteryfw.api.component import Component
from lotteryfw.api.errors import PluginError, UsageError, nearest
from lotteryfw.api.kinds import kinds
from lotteryfw.api.limits import PLUGIN_BYTES

WITHOUT = "LOTTERYFW_WITHOUT"
"""Environment variable: names of entry points or distributions, with commas, that are left out."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NOUNS = {
    "data": "data source",
    "mask0": "mask-0 action",
    "mask1": "mask-1 action",
    "rewind": "rewind policy",
    "search": "search algorithm",
}
"""What messages call a kind whose name in recipes is no noun."""


@dataclass(frozen=True)
class Plugin:
    """A plugin: an entry point, or a trusted file, whose distribution is then the file's name."""

    name: str
    distribution: str
    version: str
    components: int = 0


@dataclass(frozen=True)
class RegisteredComponent:
    """A component that recipes can name, and who provides it.

    `digest` tells two states of unreleased code apart: 8 hex digits of the SHA-256 of `files`, both empty for a
    released distribution.
    """

    cls: type[Component]
    kind: str
    name: str
    distribution: str
    version: str
    plugin: str
    digest: str = ""
    files: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name that is never ambiguous."""
        return f"{self.distribution}/{self.name}"

    @property
    def provider(self) -> str:
        """Whose code it is, and which state of it."""
        return f"{self.distribution}=={self.version}" + (f"+{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be used: at which stage, and why, in a line.

    `stage` is "import", "hooks", "register_components", "component", or the name of a hook that raised in a run.
    """

    plugin: str
    distribution: str
    version: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' of {self.distribution} {self.version} failed at {self.stage}: {self.reason}"


class _Refused(Exception):
    """Something in a plugin that is not as it has to be; the text is the reason."""


class BrokenFile(PluginError):
    """A plugin file named by the user does not work."""

    exit_code = 2


def _in_order(offers: Iterable[RegisteredComponent]) -> list[RegisteredComponent]:
    """Return components kind by kind, then by name."""
    order = list(kinds())
    return sorted(
        offers, key=lambda offer: (order.index(offer.kind), offer.name, offer.distribution)
    )


class Registry:
    """The components and hooks of all loaded plugins; `failures` lists those that failed."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.failures: list[Failure] = []
        self.excluded: list[str] = []
        self.trusted: set[Path] = set()
        self._offers: list[RegisteredComponent] = []
        self._modules: list[tuple[Plugin, object]] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def load(cls, trust: Sequence[Path] = ()) -> Registry:
        """Every installed plugin that can be loaded, and the plugin files in `trust`.

        Raises UsageError for a trusted file that is not there, BrokenFile for one that does not work.
        """
        registry = cls()
        without = {
            canonicalize_name(name.strip()) for name in os.environ.get(WITHOUT, "").split(",")
        }
        described = [(_described(point), point) for point in entry_points(group=hookspecs.PROJECT)]
        for plugin, point in sorted(
            described, key=lambda pair: (pair[0].distribution, pair[0].name)
        ):
            if without & {canonicalize_name(plugin.name), canonicalize_name(plugin.distribution)}:
                registry.excluded.append(plugin.name)
            elif failure := registry._admit(
                plugin, point.load, point if _is_unreleased(point) else None
            ):
                registry.failures.append(failure)
        for path in trust:
            registry._trust(path)
        return registry

    @property
    def hooks(self) -> pluggy.HookRelay:
        """The plugins' hooks. Prefer `notify`, which survives a plugin that raises."""
        return self._manager.hook

    def notify(self, hook: str, argument: object) -> None:
        """Call a hook of one argument in every plugin that implements it.

        One that raises is added to `failures`, once for each plugin and hook.
        """
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(*([argument] if implementation.argnames else []))
            except (Exception, SystemExit) as error:
                plugin = next(
                    plugin for plugin, module in self._modules if module is implementation.plugin
                )
                failure = _failure(plugin, hook, error)
                if not any(f.stage == hook and f.plugin == plugin.name and f.distribution == plugin.distribution
                           for f in self.failures):  # fmt: skip
                    self.failures.append(failure)

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """What is on offer, kind by kind, then by name."""
        return _in_order(offer for offer in self._offers if kind in (None, offer.kind))

    def find(self, kind: str, name: str) -> RegisteredComponent:
        """The component of this kind called `name`, or "distribution/name".

        Raises UsageError for a name nobody offers, and for a bare one that several distributions offer.
        """
        matches = [offer for offer in self._named(name) if offer.kind == kind]
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = " or ".join(f"'{offer.full_name}'" for offer in matches)
            raise UsageError(
                f"the {kind} '{name}' is offered by several distributions; write {choices}"
            )
        if elsewhere := self._named(name):
            raise UsageError(
                f"'{name}' is not {_a(kind)}, it is {_a(elsewhere[0].kind)}; "
                f"{self._nearest(name, kind)}"
            )
        raise UsageError(f"there is no {_noun(kind)} '{name}'; {self._nearest(name, kind)}")

    def find_any(self, name: str) -> list[RegisteredComponent]:
        """Return the components of any kind called `name`. Raises UsageError if there is none."""
        if found := self._named(name):
            return found
        raise UsageError(f"there is no component '{name}'; {self._nearest(name)}")

    def default(self, kind: str) -> RegisteredComponent | None:
        """Return the component that recipes get if they leave this kind out, or None."""
        defaults = [offer for offer in self.offers(kind) if offer.cls.default]
        return defaults[0] if len(defaults) == 1 else None

    def parse(self, kind: str, entry: object) -> tuple[RegisteredComponent, dict[str, Any]]:
        """Return the component that an entry names (a name, or a table with `use`), and its options.

        A table without `use` gives options to the kind's default. Raises UsageError for an entry that names no
        component of this kind.
        """
        options = dict(entry) if isinstance(entry, Mapping) else {"use": entry}
        default = self.default(kind)
        use = options.pop("use", default.full_name if default else None)
        if not isinstance(use, str):
            raise UsageError(
                f"must be the name of {_a(kind)}, or a table with `use`, got {entry!r}"
            )
        return self.find(kind, use), options

    def create(self, kind: str, entry: object) -> Component:
        """Return the component that an entry describes. Raises UsageError and ValidationError."""
        offer, options = self.parse(kind, entry)
        return offer.cls.model_validate(options)

    def offer_of(self, component: Component) -> RegisteredComponent:
        """Who provides this component. Raises UsageError for one that no plugin offers."""
        for offer in self._offers:
            if offer.cls is type(component):
                return offer
        raise UsageError(f"no plugin offers {type(component).__name__}")

    def short_name(self, offer: RegisteredComponent) -> str:
        """Return the bare name if only one distribution offers it, else the full name."""
        alike = [
            other for other in self._offers if (other.kind, other.name) == (offer.kind, offer.name)
        ]
        return offer.name if len(alike) == 1 else offer.full_name

    def _named(self, name: str) -> list[RegisteredComponent]:
        distribution, _, bare = name.rpartition("/")
        wanted = canonicalize_name(distribution)
        # Chosen before they are sorted: the engine asks for every component of every job.
        return _in_order(
            offer
            for offer in self._offers
            if offer.name == bare
            and (not distribution or canonicalize_name(offer.distribution) == wanted)
        )

    def _nearest(self, name: str, kind: str | None = None) -> str:
        bare, known = name.rpartition("/")[2], {offer.name for offer in self.offers(kind)}
        if kind is None and known:  # too many to list them all
            hint = (
                nearest(bare, difflib.get_close_matches(bare, known))
                or "`lotteryfw list` shows all"
            )
        else:
            hint = nearest(bare, known) or "none is installed"
        failed = (
            "; some plugins could not be loaded: `lotteryfw plugins` says why"
            if self.failures
            else ""
        )
        return hint + failed

    def _trust(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"there is no plugin file {path}")
        if PLUGIN_BYTES.exceeded_by(size := path.stat().st_size):
            raise UsageError(
                f"{path}: has {PLUGIN_BYTES.excess(size, 'bytes')} ({PLUGIN_BYTES.remedy})"
            )
        if path.resolve() in self.trusted:
            return
        # the file's name, not its path: what provides a component is part of a job's key, a folder is not
        plugin = Plugin(path.stem, path.name, "local")
        if failure := self._admit(plugin, lambda: _import_file(path), path):
            raise BrokenFile(f"{path}: {failure}")
        self.trusted.add(path.resolve())

    def _admit(
        self, plugin: Plugin, load: Callable[[], object], unreleased: EntryPoint | Path | None
    ) -> Failure | None:
        """Register a plugin, or return why not. `unreleased` is its code, if the version says too little."""
        module: object = None
        stage = "import"
        try:
            module = load()
            stage = "hooks"
            self._manager.register(module, f"{plugin.distribution}/{plugin.name}")
            self._check_hooks(module)
            stage = "register_components"
            classes = [cls for result in self._results(module) for cls in result]
            stage = "component"
            offers: list[RegisteredComponent] = []
            code = _code_of(unreleased, plugin, classes)
            for cls in classes:
                offers.append(_offer(cls, plugin, code, taken=[*self._offers, *offers]))
        except (Exception, SystemExit) as error:
            if module is not None and self._manager.is_registered(module):
                self._manager.unregister(module)
            return _failure(plugin, stage, error)
        plugin = replace(plugin, components=len(offers))
        self._offers += offers
        self._modules.append((plugin, module))
        self.plugins.append(plugin)
        return None

    def _check_hooks(self, module: object) -> None:
        callers = self._manager.get_hookcallers(module)
        if not callers:
            raise _Refused("it implements no hook; mark its functions with @hookimpl")
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError:
            known = [name for name, caller in vars(self._manager.hook).items() if caller.has_spec()]
            unknown = next(caller.name for caller in callers if not caller.has_spec())
            raise _Refused(f"there is no hook '{unknown}'; {nearest(unknown, known)}") from None

    def _results(self, module: object) -> Iterable[Iterable[Any]]:
        # not through the relay: that drops None, and so would hide a forgotten `return`
        for implementation in self._manager.hook.register_components.get_hookimpls():
            if implementation.plugin is module:
                result = implementation.function()
                if not isinstance(result, Iterable):
                    raise _Refused(f"must return component classes, returned {result!r}")
                yield result


def _offer(
    cls: object,
    plugin: Plugin,
    code: Callable[[type], Code | None],
    taken: Iterable[RegisteredComponent],
) -> RegisteredComponent:
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise _Refused(f"{cls!r} is not a component class")
    known = kinds()
    kind = [name for name, base in known.items() if issubclass(cls, base) and cls is not base]
    if len(kind) != 1:
        raise _Refused(
            f"{cls.__name__} must subclass one kind: {', '.join(base.__name__ for base in known.values())}"
        )
    if not isinstance(cls.use, str) or not cls.use:
        raise _Refused(f'{cls.__name__} has no name: it needs a line like `use = "my_{kind[0]}"`')
    if not _NAME.fullmatch(cls.use):
        raise _Refused(
            f"{cls.__name__}: `use` is '{cls.use}', but names are lower-case letters, digits and _"
        )
    if inspect.isabstract(cls):
        raise _Refused(
            f"{cls.__name__} does not define {', '.join(sorted(cls.__abstractmethods__))}"
        )
    own = code(cls) or Code("", ())
    offer = RegisteredComponent(
        cls,
        kind[0],
        cls.use,
        plugin.distribution,
        plugin.version,
        plugin.name,
        own.digest,
        own.files,
    )
    for other in taken:
        if (other.kind, other.full_name) == (offer.kind, offer.full_name):
            raise _Refused(
                f"{cls.__name__}: {plugin.distribution} offers a {offer.kind} '{offer.name}' already"
            )
    return offer


def _noun(kind: str) -> str:
    return _NOUNS.get(kind, kind)


def _a(kind: str) -> str:
    """Return the noun of a kind with its article."""
    noun = _noun(kind)
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _failure(plugin: Plugin, stage: str, error: BaseException) -> Failure:
    text = str(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
    return Failure(
        plugin.name, plugin.distribution, plugin.version, stage, textwrap.shorten(text, 300)
    )


def _described(point: EntryPoint) -> Plugin:
    if point.dist is None:
        return Plugin(point.name, "unknown", "unknown")
    about = point.dist.metadata
    return Plugin(point.name, about["Name"] or "unknown", about["Version"] or "unknown")


def _is_unreleased(point: EntryPoint) -> bool:
    """Whether the code can change under one version: installed from anything but a package index (PEP 610), or of a
    version that is in development or has local changes (PEP 440)."""
    if point.dist is None or point.dist.read_text("direct_url.json") is not None:
        return True
    try:
        version = Version(point.dist.version)
    except InvalidVersion:
        return True
    return version.is_devrelease or version.local is not None


def _code_of(
    unreleased: EntryPoint | Path | None, plugin: Plugin, classes: Sequence[object]
) -> Callable[[type], Code | None]:
    """What says which code each class of a plugin is made of; None for a released one, whose version says it."""
    if unreleased is None:
        return lambda cls: None
    if canonicalize_name(plugin.distribution) == "lotteryfw":
        # All files would make every result new at every edit. A kernel's revision is in keys by itself.
        return _own_file
    if isinstance(unreleased, Path):
        code = code_of([unreleased])
        return lambda cls: code
    homes = {unreleased.module, *(cls.__module__ for cls in classes if isinstance(cls, type))}
    files = {name: _file_of(name) for name in homes if name.partition(".")[0] != "lotteryfw"}
    code = code_of([file for file in files.values() if file], _installed_files(unreleased))
    return lambda cls: code


def _own_file(cls: type) -> Code | None:
    file = _file_of(cls.__module__)
    return code_of_file(file) if file else None


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file else None


def _installed_files(point: EntryPoint) -> Iterable[tuple[str, Path]]:
    """Return the source files that pip lists for a distribution, by name."""
    for file in (point.dist.files if point.dist else None) or ():
        path = Path(str(file.locate()))
        about = file.parts[0]
        if (
            about == ".."
            or about.endswith((".dist-info", ".egg-info"))
            or file.suffix in (".pth", ".pyc")
        ):
            continue
        if not about.startswith("__editable__") and path.is_file():
            yield file.as_posix(), path


def _import_file(path: Path) -> ModuleType:
    # the folder is in the name, so that two files of one name are two modules
    name = f"_lotteryfw_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _Refused("a plugin file is a Python file: its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a class's annotations up there
    spec.loader.exec_module(module)
    return module
