"""Plugins: how they are found, imported and excluded, how they fail, and what their code is."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from lotteryfw.api import hookspecs
from lotteryfw.api.code_files import Code, code_of, code_of_file, refuse_changed
from lotteryfw.api.errors import PluginError, UsageError, nearest
from lotteryfw.api.limits import PLUGIN_BYTES

WITHOUT = "LOTTERYFW_WITHOUT"
"""Environment variable: names of entry points or distributions, with commas, that are excluded."""
MAX_REASON = 300
"""Characters of an error that a failure keeps: it is shown in one line."""


@dataclass(frozen=True)
class Plugin:
    """A plugin: an entry point, or a trusted file, whose distribution is then the file's name."""

    name: str
    distribution: str
    version: str
    components: int = 0


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be used: at which stage, and why, in a line.

    `stage` is "import", "hooks", "register_components", "component", or the name of a hook that
    raised in a run.
    """

    plugin: str
    distribution: str
    version: str
    stage: str
    reason: str

    @classmethod
    def of(cls, plugin: Plugin, stage: str, error: BaseException) -> Failure:
        """Return the failure that this error is."""
        reason = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        shortened = textwrap.shorten(reason, MAX_REASON)
        return cls(plugin.name, plugin.distribution, plugin.version, stage, shortened)

    def __str__(self) -> str:
        owner = f"plugin '{self.plugin}' of {self.distribution} {self.version}"
        return f"{owner} failed at {self.stage}: {self.reason}"


class Refused(Exception):
    """A plugin breaks a rule of the registry; the text is the reason."""


class BrokenFile(PluginError):
    """A plugin file named by the user does not work."""

    exit_code = 2


def installed_plugins() -> list[tuple[Plugin, EntryPoint]]:
    """Return every installed plugin with its entry point, in an order that never changes."""
    plugins = []
    for point in entry_points(group=hookspecs.PROJECT):
        plugins.append((_plugin(point), point))
    return sorted(plugins, key=lambda pair: (pair[0].distribution, pair[0].name))


def excluded_in_vain(plugins: Iterable[Plugin]) -> list[str]:
    """Return a warning for each name that the user excludes and no installed plugin has."""
    # a misspelt name would silently leave the plugin in
    names = set()
    for plugin in plugins:
        names |= plugin_names(plugin.name, plugin.distribution)
    warnings = []
    for name in sorted(_excluded_names() - names):
        hint = nearest(name, names)
        warnings.append(f"{WITHOUT} excludes '{name}', and there is no such plugin ({hint})")
    return warnings


def _excluded_names() -> set[str]:
    names: set[str] = set()
    for name in os.environ.get(WITHOUT, "").split(","):
        # a comma at the end names nothing
        if name.strip():
            names.add(canonicalize_name(name.strip()))
    return names


def is_excluded(plugin: Plugin) -> bool:
    """Return True if the user excludes this plugin, or all of its distribution."""
    return bool(_excluded_names() & plugin_names(plugin.name, plugin.distribution))


def plugin_names(plugin: str, distribution: str) -> set[str]:
    """Return the names that a plugin goes by, in the form of `canonicalize_name`."""
    return {canonicalize_name(plugin), canonicalize_name(distribution)}


def file_plugin(path: Path) -> Plugin:
    """Return the plugin that a file is, by its name: its path is no part of a job's key."""
    if path.stem == "__init__":
        # a package's file, whose name every package has: its folder's name tells it apart
        folder = path.resolve().parent.name
        return Plugin(folder, folder, "local")
    return Plugin(path.stem, path.name, "local")


def check_file(path: Path) -> None:
    """Raise UsageError for a plugin file that is missing or too large."""
    if not path.is_file():
        raise UsageError(f"there is no plugin file {path}")
    size = path.stat().st_size
    if PLUGIN_BYTES.exceeded_by(size):
        raise UsageError(
            f"{path}: has {PLUGIN_BYTES.excess(size, 'bytes')} ({PLUGIN_BYTES.remedy})"
        )


def import_file(path: Path) -> ModuleType:
    """Import a plugin file. Raises Refused for one that is no Python file, and what its code raises."""
    # the folder is in the name, so that two files of one name are two modules
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"_lotteryfw_{path.stem}_{digest}"
    if path.suffix != ".py":
        raise Refused("a plugin file is a Python file: its name ends in .py")
    loader = _FromSource(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None, "a loader of its own always gives a spec"
    module = importlib.util.module_from_spec(spec)
    # pydantic looks a class's annotations up there
    sys.modules[name] = module
    loader.exec_module(module)
    return module


class _FromSource(SourceFileLoader):
    """Compiles a file every time it is imported.

    Python takes cached bytecode for a file of equal length that was changed within the same second.
    Then old code would run under the digest of the new.
    """

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def unreleased_code(point: EntryPoint) -> EntryPoint | None:
    """Return the entry point if its code can change under one version, else None.

    That is so for code installed from anything but a package index (PEP 610), and for a version that
    is in development or has local changes (PEP 440).
    """
    return None if point.dist is not None and is_released(point.dist) else point


def is_released(distribution: Distribution) -> bool:
    """Return whether the version of an installed distribution says what its code is."""
    if distribution.read_text("direct_url.json") is not None:
        return False
    try:
        version = Version(distribution.version)
    except InvalidVersion:
        return False
    return not version.is_devrelease and version.local is None


def code_lookup(
    unreleased: EntryPoint | Path | None, plugin: Plugin, classes: Sequence[object]
) -> Callable[[type], Code | None]:
    """Return a function from a plugin's class to the code that it is made of.

    It returns None for every class of a released plugin, whose version says it.
    """
    if unreleased is None:
        return lambda cls: None
    if canonicalize_name(plugin.distribution) == "lotteryfw":
        # With all files, every edit would make all results new. A kernel's revision is in keys by itself.
        return _code_of_module
    if isinstance(unreleased, Path):
        code = code_of([unreleased], is_executed_anew=True)
        return lambda cls: code

    modules = {unreleased.module}
    modules |= {cls.__module__ for cls in classes if isinstance(cls, type)}
    files = []
    for module in modules:
        file = _module_file(module)
        # a plugin may offer a class of lotteryfw's own under another name
        if file and module.partition(".")[0] != "lotteryfw":
            files.append(file)
    code = code_of(files, _installed_files(unreleased))
    return lambda cls: code


def _plugin(point: EntryPoint) -> Plugin:
    if point.dist is None:
        return Plugin(point.name, "unknown", "unknown")
    metadata = point.dist.metadata
    return Plugin(point.name, metadata["Name"] or "unknown", metadata["Version"] or "unknown")


def _code_of_module(cls: type) -> Code | None:
    file = _module_file(cls.__module__)
    if file is None:
        return None
    refuse_changed({f"{cls.__module__.replace('.', '/')}.py": str(file)})
    return code_of_file(file)


def _module_file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file else None


def _installed_files(point: EntryPoint) -> Iterable[tuple[str, Path]]:
    """Yield the name and path of every source file that pip lists for a distribution."""
    files = (point.dist.files if point.dist else None) or ()
    for file in files:
        if _is_source(file.parts[0], file.suffix):
            path = Path(str(file.locate()))
            if path.is_file():
                yield file.as_posix(), path


def _is_source(top: str, suffix: str) -> bool:
    # pip also lists scripts (in "..", beside the packages), its own records, and files that point to
    # an editable install
    if top == ".." or top.endswith((".dist-info", ".egg-info")) or top.startswith("__editable__"):
        return False
    return suffix not in (".pth", ".pyc")
