"""The code that the user trusts, from which recipes may name functions."""

from __future__ import annotations

import importlib
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path
from types import ModuleType

from lotteryfw.api.code_files import code_of
from lotteryfw.api.errors import UsageError
from lotteryfw.api.functions import ImportedFunction, function_in, split_name
from lotteryfw.registry.plugins import BrokenFile, is_released

_UNTRUSTED = "is code, and a recipe runs no code unless you say so"


def is_module_name(text: str) -> bool:
    """Return whether a text can name a module, such as "package.module", and no Python file."""
    return not text.endswith(".py") and all(part.isidentifier() for part in text.split("."))


class TrustedCode:
    """The files and modules that the user trusts, and the functions in them."""

    def __init__(self) -> None:
        self._files: dict[Path, object] = {}
        self._modules: dict[str, ModuleType] = {}
        # Hashing files takes longer than all else here, and every cell may name the same function.
        self._codes: dict[Path | str, str] = {}

    def add_file(self, path: Path, module: object) -> None:
        """Trust a file, which was imported as this module."""
        self._files[path.resolve()] = module

    def add_module(self, name: str) -> None:
        """Trust an installed module, and import it.

        Raises UsageError where there is none, BrokenFile where it cannot be imported.
        """
        try:
            self._modules[name] = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            # a module that imports another one which is not there is itself there
            if missing is not None and f"{name}.".startswith(f"{missing}."):
                raise UsageError(
                    f"there is no plugin file {name}, and no module of that name"
                ) from None
            raise BrokenFile(
                f"the module {name} failed at import: {type(error).__name__}: {error}"
            ) from error
        # Now, since the file may be another one when a recipe names a function of it.
        if getattr(self._modules[name], "__file__", None):
            self._code_of_module(name)

    def function(self, text: str, beside: Iterable[Path] = ()) -> ImportedFunction:
        """Return the function of this name in a trusted file or module.

        A file is named by its name, with as many of its folders as tell it from others. Files in
        the folders `beside` are named in the message where a file is not trusted. Raises
        UsageError.
        """
        where, _ = split_name(text)
        if not where.endswith(".py"):
            if where not in self._modules:
                raise UsageError(
                    f"the module {where} {_UNTRUSTED}: look at it, then run again with "
                    f"--trust {shlex.quote(where)}"
                )
            return function_in(self._modules[where], text, self._code_of_module(where))
        path = self._trusted_file(where, beside)
        return function_in(self._files[path], text, self._code_of_file(path))

    def _trusted_file(self, name: str, beside: Iterable[Path]) -> Path:
        parts = Path(name).parts
        # The folder in which a file lies must not be part of a key, so names are compared from
        # their ends; "../my_models.py" has the name and no folder that could be compared.
        while parts[:1] == ("..",):
            parts = parts[1:]
        matches = [path for path in self._files if path.parts[-len(parts) :] == parts]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = " and ".join(map(str, matches))
            raise UsageError(f"{name} may be {listed}: write more of its path")
        for folder in beside:
            file = folder / name
            if file.is_file():
                raise UsageError(
                    f"{file} {_UNTRUSTED}: read it, then run again with "
                    f"--trust {shlex.quote(str(file))}"
                )
        raise UsageError(f"there is no file {name} here, and none is trusted; see --trust")

    def _code_of_file(self, path: Path) -> str:
        if path not in self._codes:
            # as a plugin file: its name and content, not its folder
            self._codes[path] = (
                f"{path.name}==local+{code_of([path], is_executed_anew=True).digest}"
            )
        return self._codes[path]

    def _code_of_module(self, name: str) -> str:
        if name not in self._codes:
            self._codes[name] = _code_of_module(name, self._modules[name])
        return self._codes[name]


def _code_of_module(name: str, module: ModuleType) -> str:
    """Return the distribution of a module and its version, or a hash of code without a release."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"python=={platform.python_version()}"
    owner = _distribution_of(top)
    if owner is not None and is_released(owner):
        return f"{owner.metadata['Name']}=={owner.version}"
    if module.__file__ is None:
        raise UsageError(f"the module {name} has no file, so its code cannot be part of a key")
    version = "local" if owner is None else owner.version
    return f"{top}=={version}+{code_of([Path(module.__file__)]).digest}"


def _distribution_of(top: str) -> Distribution | None:
    # A folder of Python files on the search path belongs to no distribution.
    names = packages_distributions().get(top)
    return distribution(names[0]) if names else None
