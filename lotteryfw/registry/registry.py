"""The registry: the components and hooks of all plugins, and the plugins that failed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
from packaging.utils import canonicalize_name
from pydantic_core import PydanticCustomError

from lotteryfw.api import hookspecs
from lotteryfw.api.code_files import ChangedCode
from lotteryfw.api.component import BUILD, Component
from lotteryfw.api.errors import PluginError, UsageError, nearest
from lotteryfw.api.functions import FUNCTION
from lotteryfw.api.steps import Clock
from lotteryfw.registry.components import (
    RegisteredComponent,
    in_order,
    noun,
    noun_with_article,
    register,
)
from lotteryfw.registry.functions import TrustedCode, is_module_name
from lotteryfw.registry.hooks import check_hooks, component_classes, function_of
from lotteryfw.registry.plugins import (
    BrokenFile,
    Failure,
    Plugin,
    Refused,
    check_file,
    code_lookup,
    excluded_in_vain,
    file_plugin,
    import_file,
    installed_plugins,
    is_excluded,
    unreleased_code,
)
from lotteryfw.registry.session_code import session_code

SESSION = "session"
"""The distribution of components that a script or a notebook defines."""

PROVIDER = "from"
"""The key of the provider of a component among the options of another one, in jobs. No option can
have this name, which is a keyword of Python."""


class Registry:
    """The components and hooks of all loaded plugins.

    `failures` lists plugins that failed, `warnings` what else the user may not have meant.
    """

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.failures: list[Failure] = []
        self.excluded: list[str] = []
        self.trusted: set[Path] = set()
        self.trusted_code = TrustedCode()
        self.trust: tuple[Path, ...] = ()
        """The files and modules of `load`, for another process that loads the same."""
        self.warnings: list[str] = []
        self._offers: list[RegisteredComponent] = []
        # The engine asks for every component of every job, so names are looked up, not searched.
        self._offers_by_name: dict[str, list[RegisteredComponent]] = {}
        self._modules: list[tuple[Plugin, object]] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def load(cls, trust: Sequence[Path] = ()) -> Registry:
        """Load every installed plugin that can be loaded, and the files and modules in `trust`.

        Raises UsageError for a trusted file that is not there, BrokenFile for one that does not work,
        ChangedCode where this process imported another state of the code.
        """
        registry = cls()
        installed = installed_plugins()
        registry.warnings = excluded_in_vain(plugin for plugin, _ in installed)
        for plugin, point in installed:
            if is_excluded(plugin):
                registry.excluded.append(plugin.name)
                continue
            # one plugin that fails must not take the others with it
            failure = registry._admit(plugin, point.load, unreleased_code(point))
            if failure:
                registry.failures.append(failure)
        for path in trust:
            registry._trust(path)
        registry.trust = tuple(trust)
        return registry

    def add_session(self, classes: Iterable[object]) -> None:
        """Offer component classes that a script or a notebook defines, as "session/name".

        Raises UsageError for a class that is no complete component.
        """
        plugin = Plugin("session", SESSION, "local")
        for cls in classes:
            try:
                self._add([register(cls, plugin, session_code, taken=self._offers)])
            except Refused as error:
                raise UsageError(f"components: {error}") from error

    @property
    def session_names(self) -> list[str]:
        """The names of the components that the session defines."""
        names = []
        for offer in self._offers:
            if offer.distribution == SESSION:
                names.append(offer.name)
        return names

    def notify(self, hook: str, argument: object) -> None:
        """Call a hook of one argument in every plugin that implements it.

        One that raises is added to `failures`, once for each plugin and hook.
        """
        for plugin, function in self.implementations(hook):
            try:
                function(argument)
            except (Exception, SystemExit) as error:
                self._add_failure(Failure.of(plugin, hook, error))

    def implementations(self, hook: str) -> Iterator[tuple[Plugin, Callable[[Any], object]]]:
        """Yield the plugins that implement a hook of one argument, each with its function."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            yield self._plugin_of(implementation.plugin), function_of(implementation)

    def is_heard(self, hook: str) -> bool:
        """Return True if some plugin implements a hook, so that its events are worth making."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def recipes(self) -> dict[str, Path]:
        """Return the recipes that plugins ship, by "distribution/name".

        A plugin whose hook breaks is added to `failures`, and the others' recipes are there.
        """
        recipes = {}
        # not at the start, since most commands need no recipe by name
        for implementation in self._manager.hook.register_recipes.get_hookimpls():
            plugin = self._plugin_of(implementation.plugin)
            try:
                result: object = implementation.function()
                if not isinstance(result, Iterable):
                    raise Refused(f"must return recipe files, returned {result!r}")
                files = [Path(file) for file in result]
                missing = [str(file) for file in files if not file.is_file()]
                if missing:
                    raise Refused(f"there is no file {', '.join(missing)}")
            except (Exception, SystemExit) as error:
                self._add_failure(Failure.of(plugin, "register_recipes", error))
                continue
            for file in files:
                recipes[f"{plugin.distribution}/{file.stem}"] = file
        return recipes

    def offers(self, kind: str | None = None) -> list[RegisteredComponent]:
        """Return the components of a kind, or of all kinds in order, sorted by name."""
        return in_order(offer for offer in self._offers if kind in (None, offer.kind))

    def find(self, kind: str, name: str) -> RegisteredComponent:
        """Return the component of this kind called `name`, or "distribution/name".

        Raises UsageError for a name nobody offers, and for a bare one that several distributions offer.
        """
        named = self._named(name)
        matches = [offer for offer in named if offer.kind == kind]
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = " or ".join(f"'{offer.full_name}'" for offer in matches)
            raise UsageError(
                f"the {kind} '{name}' is offered by several distributions; write {choices}"
            )
        if named:
            raise UsageError(
                f"'{name}' is not {noun_with_article(kind)}, it is "
                f"{noun_with_article(named[0].kind)}; {self._nearest(name, kind)}"
            )
        raise UsageError(f"there is no {noun(kind)} '{name}'; {self._nearest(name, kind)}")

    def find_any(self, name: str) -> list[RegisteredComponent]:
        """Return the components of any kind called `name`. Raises UsageError if there is none."""
        offers = self._named(name)
        if not offers:
            raise UsageError(f"there is no component '{name}'; {self._nearest(name)}")
        return offers

    def default(self, kind: str) -> RegisteredComponent | None:
        """Return the component that recipes get if they leave this kind out, or None.

        Of several, it is the one that comes with lotteryfw.
        """
        defaults = [offer for offer in self.offers(kind) if offer.cls.default]
        if len(defaults) > 1:
            # Another plugin's may inherit `default` from the class that it changes: recipes that
            # leave the kind out must not fail, nor mean something else, where it is installed.
            defaults = [offer for offer in defaults if offer.distribution == hookspecs.PROJECT]
        return defaults[0] if len(defaults) == 1 else None

    def parse(self, kind: str, entry: object) -> tuple[RegisteredComponent, dict[str, Any]]:
        """Return the component that an entry names (a name, or a table with `use`), and its options.

        A table without `use` gives options to the kind's default. Raises UsageError for an entry that
        names no component of this kind.
        """
        options = dict(entry) if isinstance(entry, Mapping) else {"use": entry}
        default = self.default(kind)
        use = options.pop("use", default.full_name if default else None)
        if not isinstance(use, str):
            raise UsageError(
                f"must be the name of {noun_with_article(kind)}, or a table with `use`, "
                f"got {entry!r}"
            )
        return self.find(kind, use), options

    def create(self, kind: str, entry: object) -> Component:
        """Return the component that an entry describes. Raises UsageError and ValidationError."""
        offer, options = self.parse(kind, entry)
        context = {BUILD: self.create_nested, FUNCTION: self.trusted_code.function}
        return offer.cls.model_validate(options, context=context)

    def create_nested(self, kind: str, entry: object) -> Component:
        """Return `create(kind, entry)` for pydantic, which reports its errors below an option."""
        try:
            return self.create(kind, entry)
        except UsageError as error:
            raise PydanticCustomError("component", "{text}", {"text": str(error)}) from None

    def options_for_job(self, component: Component, clock: Clock | None) -> dict[str, Any]:
        """Return the options of a component as jobs name them.

        Components among them have their full names and their providers, which say what code it is.
        """

        def with_provider(nested: Component) -> dict[str, Any]:
            offer = self.offer_of(nested)
            head = {"use": offer.full_name, PROVIDER: self.provider_of(nested)}
            return head | self.options_for_job(nested, clock)

        return component.options(clock, with_provider)

    def provider_of(self, component: Component) -> str:
        """Return the distribution of a component, and the code of the functions that it names."""
        return _with_functions(self.offer_of(component).provider, component)

    def from_job(
        self, kind: str, use: str, provider: str | None, options: Mapping[str, Any]
    ) -> Component:
        """Return the component that a job names, the components among its options included.

        Raises PluginError where one of them is not installed in that version. With None as its
        provider, the component itself may have any.
        """
        registered = self.find(kind, use)

        def refuse_another(here: str, is_same: bool) -> None:
            if provider is not None and not is_same:
                raise PluginError(f"{kind} '{use}' is here from {here}; the job needs {provider}")

        # before the options, which another version may not have
        here = registered.provider
        refuse_another(here, f"{provider}, ".startswith(f"{here}, "))

        def build(nested_kind: str, entry: Mapping[str, Any]) -> Component:
            nested = dict(entry)
            return self.from_job(nested_kind, nested.pop("use"), nested.pop(PROVIDER), nested)

        context = {BUILD: build, FUNCTION: self.trusted_code.function}
        component = registered.cls.model_validate(dict(options), context=context)
        here = _with_functions(registered.provider, component)
        refuse_another(here, here == provider)
        return component

    def offer_of(self, component: Component) -> RegisteredComponent:
        """Return the entry of this component. Raises UsageError for one that no plugin offers."""
        for offer in self._offers:
            if offer.cls is type(component):
                return offer
        raise UsageError(f"no plugin offers {type(component).__name__}")

    def short_name(self, offer: RegisteredComponent) -> str:
        """Return the bare name if only one distribution offers it, else the full name."""
        for other in self._offers:
            is_alike = (other.kind, other.name) == (offer.kind, offer.name)
            if is_alike and other.distribution != offer.distribution:
                return offer.full_name
        return offer.name

    def _named(self, name: str) -> list[RegisteredComponent]:
        distribution, _, bare = name.rpartition("/")
        offers = self._offers_by_name.get(bare, [])
        if distribution:
            wanted = canonicalize_name(distribution)
            offers = [one for one in offers if canonicalize_name(one.distribution) == wanted]
        return in_order(offers)

    def _nearest(self, name: str, kind: str | None = None) -> str:
        """Return the closest names that would be right, as the second half of a message."""
        bare = name.rpartition("/")[2]
        names = {offer.name for offer in self.offers(kind)}
        if kind is None and names:
            # there are too many components of all kinds to list them
            close = difflib.get_close_matches(bare, names)
            hint = nearest(bare, close) or "`lotteryfw list` shows all"
        else:
            hint = nearest(bare, names) or "none is installed"
        if self.failures:
            hint += "; some plugins could not be loaded: `lotteryfw plugins` says why"
        return hint

    def _plugin_of(self, module: object) -> Plugin:
        for plugin, loaded in self._modules:
            if loaded is module:
                return plugin
        raise ValueError("only modules of loaded plugins have hooks")

    def _add_failure(self, failure: Failure) -> None:
        for earlier in self.failures:
            earlier_source = (earlier.plugin, earlier.distribution, earlier.stage)
            # a hook that raises does so at every event: one line is enough
            if earlier_source == (failure.plugin, failure.distribution, failure.stage):
                return
        self.failures.append(failure)

    def _trust(self, path: Path) -> None:
        if is_module_name(str(path)) and not path.exists():
            self.trusted_code.add_module(str(path))
            return
        check_file(path)
        if path.resolve() in self.trusted:
            return
        failure = self._admit(file_plugin(path), lambda: import_file(path), path)
        if failure:
            raise BrokenFile(f"{path}: {failure}")
        self.trusted.add(path.resolve())
        self.trusted_code.add_file(path, self._modules[-1][1])

    def _admit(
        self, plugin: Plugin, load: Callable[[], object], unreleased: EntryPoint | Path | None
    ) -> Failure | None:
        """Register a plugin and all its components, or none of it and return the failure.

        `unreleased` is the plugin's code if its version says too little about it.
        """
        is_new = False
        stage = "import"
        # the stage says in which of its parts the plugin broke
        try:
            module = load()
            stage = "hooks"
            # a second plugin of one module is refused, and takes no hooks from the first
            is_new = not self._manager.is_registered(module)
            # two files of one name are two plugins, which pluggy would refuse
            file = f" {unreleased.resolve()}" if isinstance(unreleased, Path) else ""
            self._manager.register(module, f"{plugin.distribution}/{plugin.name}{file}")
            check_hooks(self._manager, module, is_file=isinstance(unreleased, Path))
            stage = "register_components"
            classes = component_classes(self._manager, module)
            stage = "component"
            code_of = code_lookup(unreleased, plugin, classes)
            offers: list[RegisteredComponent] = []
            for cls in classes:
                offers.append(register(cls, plugin, code_of, taken=[*self._offers, *offers]))
        except (Exception, SystemExit) as error:  # a plugin may also end the process
            if is_new and self._manager.is_registered(module):
                self._manager.unregister(module)
            if isinstance(error, ChangedCode):
                raise
            return Failure.of(plugin, stage, error)
        plugin = replace(plugin, components=len(offers))
        self._add(offers)
        self._modules.append((plugin, module))
        self.plugins.append(plugin)
        return None

    def _add(self, offers: Sequence[RegisteredComponent]) -> None:
        self._offers += offers
        for offer in offers:
            self._offers_by_name.setdefault(offer.name, []).append(offer)


def _with_functions(provider: str, component: Component) -> str:
    """Return a component's provider followed by the code of the functions that it names."""
    codes = {function.code for function in component.named_functions()}
    return ", ".join([provider, *sorted(codes)])
