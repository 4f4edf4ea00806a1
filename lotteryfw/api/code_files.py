"""The files of a plugin that is not released, and a hash of them.

A released distribution is known by its version. Anything else can change from one run to the next:
then the plugin's own files count, and those of every local module that they import, wherever the
import stands.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from lotteryfw.api.errors import UsageError
from lotteryfw.api.fingerprints import named_fingerprint

_KNOWN_OTHERWISE = sys.stdlib_module_names | {"lotteryfw", "numpy", "torch", "torchvision"}
"""Top-level modules that are never a plugin's own, even in a developer's folder."""
_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
# Bytecode changes with the version of Python, and not with the code.
_COMPILED = (".pyc", ".pyo")


@dataclass(frozen=True)
class Code:
    """The files that a component is made of.

    `files` are their names in order, `digest` 8 hex digits of the SHA-256 over all of them.
    """

    digest: str
    files: tuple[str, ...]


class ChangedCode(UsageError):
    """A file is not what it was when this process imported it, so the old code would run."""


_counted: dict[str, tuple[object, str]] = {}
"""By the path of a file: the import of its module, None before it, and the SHA-256 of the file."""


def refuse_changed(files: Mapping[str, str]) -> None:
    """Raise ChangedCode where the file of an imported module changed since it was first counted.

    The keys of `files` are module paths such as "package/module.py", the values where they are.
    """
    for name, path in files.items():
        if not path.endswith(".py"):
            continue
        try:
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            continue
        # A reload makes a new spec, and keeps the module.
        imported = getattr(_imported_module(name, path), "__spec__", None)
        before, old_content = _counted.get(path, (None, content))
        # A file that was counted before its import may have changed before or after it.
        is_same_import = imported is not None and (before is None or before is imported)
        if is_same_import and content != old_content:
            raise ChangedCode(
                f"{path} changed since this session imported it: restart the session, since the "
                "old code would run, and its results would be kept as those of the new"
            )
        _counted[path] = (imported, content)


def _imported_module(name: str, path: str) -> object:
    """Return the module that a file was imported as; None where it was not."""
    # a second file of one name has a number
    plain = re.sub(r" \(\d+\)$", "", name).removesuffix(".py").removesuffix("/__init__")
    module = sys.modules.get(plain.replace("/", "."))
    file = getattr(module, "__file__", None)
    is_same = isinstance(file, str) and os.path.realpath(file) == os.path.realpath(path)
    return module if is_same else None


def code_of(
    modules: Iterable[Path],
    installed: Iterable[tuple[str, Path]] = (),
    *,
    is_executed_anew: bool = False,
) -> Code:
    """Return the code that starts at the files of some modules.

    Of a module in a package all files of the package count. `installed` are further files, by
    name, that belong to it. Import statements are followed, also inside functions, to modules
    beside these files and to local folders on `sys.path`; what is installed beside lotteryfw is
    not followed.

    Raises ChangedCode where this process has imported another state of one of the files.
    `is_executed_anew` says that this cannot be so of the `modules` themselves.
    """
    modules = list(modules)
    files = _Files()
    for name, path in installed:
        files.add(name, path)
    for module in sorted(set(modules)):
        files.add_module(module)
    files.follow_imports()
    anew = {str(module.absolute()) for module in modules} if is_executed_anew else set()
    refuse_changed({name: path for name, path in files.paths.items() if path not in anew})
    names = tuple(sorted(files.paths))
    folders = [os.path.dirname(path) for path in files.paths.values()]
    base = os.path.commonpath(folders) if folders else ""
    return Code(named_fingerprint(files.paths, base)[:8], names)


def code_of_file(file: Path) -> Code:
    """Return the code that one file is, whatever it imports."""
    return Code(named_fingerprint({file.name: str(file)}, str(file.parent))[:8], (file.name,))


def local_file(module: str) -> Path | None:
    """Return the file of a module that belongs to no distribution and not to Python, or None."""
    if module.partition(".")[0] in _KNOWN_OTHERWISE:
        return None
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None and module not in sys.modules:
        spec = _imported_from(module.partition(".")[0])
        file = spec.origin if spec is not None and spec.has_location else None
    return None if file is None or _is_installed(Path(file)) else Path(file)


@dataclass
class _Files:
    """The files collected so far, by names relative to the folder they are imported from."""

    paths: dict[str, str] = field(default_factory=dict)
    _unread: list[str] = field(default_factory=list)
    _folders: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path) -> None:
        """Add one file. A second file of the same name, from another folder, gets a number."""
        text, free, number = str(path), name, 1
        # Two plugins may each have a `utils.py`.
        while self.paths.get(free, text) != text:
            number += 1
            free = f"{name} ({number})"
        # A file that several modules import is read once.
        if free not in self.paths:
            self.paths[free] = text
            self._unread.append(text)

    def add_module(self, file: Path) -> None:
        """Add a module's file, with all files of the package that it lies in."""
        top = file = file.absolute()
        # A package is imported as a whole, so that each of its files may decide a result.
        while (top.parent / "__init__.py").is_file():
            top = top.parent
        self._add_all(top.parent, _below(top) if top.is_dir() else [file])

    def _add_all(self, folder: Path, files: Iterable[Path]) -> None:
        if str(folder) not in self._folders and not _is_installed(folder):
            self._folders.append(str(folder))
        for path in files:
            self.add(path.relative_to(folder).as_posix(), path)

    def follow_imports(self) -> None:
        """Add every local module that is imported by what was added, and by what that adds."""
        searched: set[tuple[str, int]] = set()
        names: set[str] = set()
        while self._unread:
            path = self._unread.pop()
            # Only Python files import; data files count by their content.
            if path.endswith(".py"):
                names |= _imported(path)
            # a folder that came in later may hold a module that an earlier file imports
            for name in sorted(names):
                if (name, len(self._folders)) not in searched:
                    searched.add((name, len(self._folders)))
                    self._add_named(name)

    def _add_named(self, name: str) -> None:
        for spec in (PathFinder.find_spec(name, self._folders), _imported_from(name)):
            # A module that is not there is imported under a condition, or by nobody.
            if spec is None:
                continue
            if spec.has_location and spec.origin and not _is_installed(Path(spec.origin)):
                self.add_module(Path(spec.origin))
            elif spec.origin is None:
                self._add_namespace(spec.submodule_search_locations or ())

    def _add_namespace(self, locations: Iterable[str]) -> None:
        """Add the modules of folders without __init__.py, which may hold anything beside them."""
        for folder in map(Path, locations):
            if not _is_installed(folder):
                modules = [path for path in _below(folder) if path.suffix == ".py"]
                self._add_all(folder.parent, modules)


def _imported_from(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        # a module that was put into sys.modules by hand has no spec
        return None


def _imported(path: str) -> set[str]:
    """Return the top-level modules that a file imports, of those that can be a plugin's own."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):  # nobody can import it either
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call):
            names |= set(_imported_by_call(node))
    return {name.partition(".")[0] for name in names} - _KNOWN_OTHERWISE - {""}


def _imported_by_call(node: ast.Call) -> Iterator[str]:
    """Yield the module of `import_module("name")` and of `__import__("name")`."""
    called = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    if called in ("import_module", "__import__") and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, except hidden ones and those that Python compiled."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if name != "__pycache__" and not name.startswith(".")
        ]
        for name in names:
            if not name.endswith(_COMPILED) and not name.startswith("."):
                yield Path(parent) / name


def _is_installed(path: Path) -> bool:
    """Return whether a file is Python's own, or was installed from a package."""
    resolved = path.resolve()
    return any(part in _INSTALLED for part in resolved.parts) or any(
        map(resolved.is_relative_to, _STANDARD)
    )
