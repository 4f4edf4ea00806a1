"""The code of components that a script or a notebook defines: what results are keyed by."""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import linecache
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from functools import cached_property, partial, partialmethod
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from pydantic import BaseModel

from lotteryfw.api.code_files import Code, code_of, local_file
from lotteryfw.api.errors import UsageError

_MAIN = "__main__"
_MAX_DEPTH = 20
"""Containers within each other that are read as one text; deeper ones are read one by one."""


def session_code(cls: type) -> Code:
    """Return the code of a class that no plugin offers.

    Of a class in a module of its own, the module's file and what it imports count, and the
    variables that a function which made the class left to it. In a script or a notebook, where
    everything else changes all the time, the source of the class counts, and of what it names:
    functions, classes, values (tensors and arrays among them) and local modules. Raises UsageError
    where there is no source, and for a value that nothing can tell from another one.
    """
    used = _Used(cls.__name__)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if cls.__module__ != _MAIN and file:
        for name, function in _functions(cls):
            used.add_cells(f"{cls.__name__}.{name}", function)
        code = code_of([Path(file)])
        if not used.texts:
            return code
        used.texts[""] = code.digest
        return Code(used.digest(), (*code.files, *filter(None, sorted(used.texts))))
    used.add(cls.__name__, cls)
    return Code(used.digest(), tuple(sorted(used.texts)))


@dataclass
class _Used:
    """The texts of all that the class `owner` uses, by name."""

    owner: str
    texts: dict[str, str] = field(default_factory=dict)
    # by its address, which no other object has while the object is kept here
    _seen: dict[int, object] = field(default_factory=dict)

    def digest(self) -> str:
        """Return 8 hex digits of the SHA-256 of all texts."""
        # sorted: the order in which names are met is that of the class, and may change with it
        joined = "\n".join(self.texts[name] for name in sorted(self.texts))
        return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:8]

    def add(self, name: str, value: Any) -> None:
        """Add a value of this name, and all that it uses. Raises UsageError."""
        if name in self.texts:
            return
        text = _text(value)
        if text is not None:
            self.texts[name] = f"{name} = {text}"
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, logging.Logger):
            return  # it decides nothing
        if isinstance(value, ModuleType):
            self.texts[name] = f"{name} = {value.__name__}"
            self._add_module(value.__name__)
        elif isinstance(value, type):
            self._add_class(name, value)
        elif isinstance(value, FunctionType):
            self._add_function(name, value)
        else:
            self._add_parts(name, value)

    def add_cells(self, name: str, function: FunctionType) -> None:
        """Add the variables of the functions around this one that it uses."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for variable, cell in cells:
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # empty: it is assigned later
            # the class that is being read
            if variable == "__class__":
                continue
            # The function that a decorator of an installed package wraps is the user's own.
            if not _is_installed(function) or isinstance(value, FunctionType):
                self.add(f"{name}.{variable}", value)

    def _add_class(self, name: str, cls: type) -> None:
        if cls.__module__ != _MAIN:
            self._add_imported(name, cls.__module__, cls.__qualname__)
            return
        source = self._add_source(name, cls)
        for member, value in vars(cls).items():
            for function in _inner_functions(value):
                # what a dataclass generates follows from the source of the class
                if inspect.unwrap(function).__code__.co_filename == "<string>":
                    continue
                # a method that was written elsewhere, such as what a decorator made of it
                inside = f"{name}.{member}"
                if not _is_installed(function):
                    own = _source_of_code(function.__code__)
                    if own is None or own.strip() not in source:
                        self.add(inside, function)
                        continue
                self._follow(inside, function)
            # what is left are values; data descriptors are those of slots
            is_value = not _inner_functions(value) and not inspect.isdatadescriptor(value)
            if is_value and not _is_internal(member):
                self.add(f"{name}.{member}", value)
        for base in cls.__bases__:
            self.add(base.__name__, base)

    def _add_function(self, name: str, function: FunctionType) -> None:
        module = function.__globals__.get("__name__", "")
        if module == _MAIN:
            self._add_source(name, function)
        else:
            self._add_imported(name, module, function.__qualname__)
        self._follow(name, function)

    def _follow(self, name: str, function: FunctionType) -> None:
        """Add what the code of a function uses."""
        self.add_cells(name, function)
        wrapped = vars(function).get("__wrapped__")
        if wrapped is not None:
            self.add(f"{name}.__wrapped__", wrapped)
        if function.__globals__.get("__name__") != _MAIN:
            return  # its module's file counts, or its distribution's version
        for number, value in enumerate(function.__defaults__ or ()):
            self.add(f"{name}.default {number}", value)
        for keyword, value in (function.__kwdefaults__ or {}).items():
            self.add(f"{name}.default {keyword}", value)
        for code in _codes(function.__code__):
            for instruction in dis.get_instructions(code):
                used = instruction.argval
                if instruction.opname == "IMPORT_NAME":
                    self._add_module(used)
                # only what is loaded as a variable: an attribute may have a variable's name
                is_loaded = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
                if is_loaded and used in function.__globals__:
                    self.add(used, function.__globals__[used])

    def _add_source(self, name: str, value: Any) -> str:
        source = _source(value)
        if source is None:
            raise UsageError(
                f"components: the source of {name} cannot be read, by which its results would be "
                "keyed; define it in a file or a notebook"
            )
        self.texts[name] = f"{name}: {source}"
        return source

    def _add_imported(self, name: str, module: str, qualified: str) -> None:
        self.texts[name] = f"{name} = {module}.{qualified}"
        self._add_module(module)

    def _add_module(self, module: str) -> None:
        """Add the file of a local module; others are known by their distributions."""
        file = local_file(module)
        if file is not None and f"module {module}" not in self.texts:
            self.texts[f"module {module}"] = f"{module}: {code_of([file]).digest}"

    def _add_parts(self, name: str, value: Any) -> None:
        """Add the parts of a value that has no text of its own."""
        parts = _parts(value)
        if parts is None:
            raise UsageError(
                f"components: {name}, which {self.owner} uses, is a {type(value).__name__}, whose "
                "value cannot be part of a key; use numbers, texts, arrays and tensors, or move "
                "the component into a plugin file (trust=)"
            )
        self.texts[name] = f"{name} = {type(value).__module__}.{type(value).__qualname__}"
        if type(value).__module__ == _MAIN:
            self.add(type(value).__name__, type(value))
        for part, inner in parts.items():
            self.add(f"{name}.{part}", inner)


def _text(value: Any, depth: int = 0) -> str | None:
    """Return the text of a plain value, or of a tensor or array; None for anything else."""
    if value is None or value is ... or isinstance(value, str | int | float | complex | bytes):
        return repr(value) if not isinstance(value, Enum) or _is_installed(type(value)) else None
    if isinstance(value, PurePath):
        return repr(value)
    if isinstance(value, re.Pattern):
        return repr((value.pattern, value.flags))
    if isinstance(value, tuple | list | set | frozenset | dict) and depth < _MAX_DEPTH:
        items = [*value, *value.values()] if isinstance(value, dict) else list(value)
        texts = []
        for item in items:
            text = _text(item, depth + 1)
            # only where Python's own text of it says all
            if text is None or text != repr(item):
                return None
            texts.append(text)
        if isinstance(value, set | frozenset):
            # it has another order in another process
            return f"{type(value).__name__} {sorted(texts)}"
        return repr(value)
    return _array_text(value)


def _array_text(value: Any) -> str | None:
    """Return type, shape and digest of a tensor or array; the text of a dtype or device."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.dtype | torch.device):
        return repr(value)
    if torch is not None and isinstance(value, torch.Tensor):
        try:
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            content = plain.numpy().tobytes()
        except (RuntimeError, TypeError, NotImplementedError):
            return None  # of a kind without a plain content, such as a sparse one
        about = f"{value.dtype} {tuple(value.shape)}"
    elif numpy is not None and isinstance(value, numpy.dtype):
        return repr(value)
    elif numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        if value.dtype.hasobject:
            return None
        content, about = value.tobytes(), f"{value.dtype.str} {value.shape}"
    else:
        return None
    return f"{type(value).__name__} {about} {hashlib.sha256(content).hexdigest()}"


def _parts(value: Any) -> Mapping[str, Any] | None:
    """Return what a value is made of, by names; None where that is not known."""
    if isinstance(value, tuple | list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {f"[{key!r}]": item for key, item in items}
    if isinstance(value, partial | partialmethod):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"function": value.__func__, "self": value.__self__}
    if isinstance(value, Enum):
        return {"name": value.name, "value": value.value}
    inner = _inner_functions(value)
    if inner:
        return {"functions": inner}
    if inspect.isroutine(value) or type(value).__name__ == "ufunc":
        bound = getattr(value, "__self__", None)
        named = {"name": getattr(value, "__qualname__", value.__name__)}
        return named if bound is None or isinstance(bound, ModuleType) else {**named, "self": bound}
    if type(value).__module__ in ("typing", "types") and not isinstance(value, SimpleNamespace):
        return {"text": repr(value)}
    is_known = is_dataclass(value) or isinstance(value, SimpleNamespace | BaseModel)
    if (is_known or type(value).__module__ == _MAIN) and hasattr(value, "__dict__"):
        return dict(vars(value))
    return None


def _functions(cls: type) -> Iterator[tuple[str, FunctionType]]:
    for name, member in vars(cls).items():
        for function in _inner_functions(member):
            yield name, function


def _inner_functions(value: Any) -> list[FunctionType]:
    """Return the functions that a member of a class calls: those of a property, of a wrapper."""
    if isinstance(value, FunctionType):
        return [value]
    if isinstance(value, property):
        inner = [value.fget, value.fset, value.fdel]
    elif isinstance(value, cached_property):
        inner = [value.func]
    else:
        # class methods and static methods, then functions with a cache
        members = getattr(value, "__dict__", {})
        inner = [getattr(value, "__func__", None) or members.get("__wrapped__")]
    functions = []
    for function in inner:
        if function is not None and function is not value:
            functions += _inner_functions(function)
    return functions


def _is_internal(member: str) -> bool:
    """Return whether a member of a class is Python's or pydantic's, or is told by its source."""
    return member.startswith(("__", "model_")) or member in ("_abc_impl", "use")


def _is_installed(value: FunctionType | type) -> bool:
    """Return whether code is of no script and no local module."""
    if isinstance(value, type):
        module = value.__module__
    else:
        # `functools.wraps` gives a wrapper the module of what it wraps
        module = value.__globals__.get("__name__", "")
    return module != _MAIN and local_file(module) is None


def _source(value: Any) -> str | None:
    """Return the source of a function or a class; None where there is none, as at a plain prompt."""
    if isinstance(value, FunctionType):
        return _source_of_code(value.__code__)
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        pass
    # Before Python 3.13 inspect looks for a class in the file of its module, which a notebook does
    # not have. The code of a method names its cell, whose text IPython keeps for tracebacks.
    for _, function in _functions(value):
        cell = "".join(linecache.getlines(function.__code__.co_filename))
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                return ast.get_source_segment(cell, node)
    return None


def _source_of_code(code: CodeType) -> str | None:
    # not of the function: for a wrapper that would be the source of what it wraps
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function, with that of the functions inside."""
    pending = [code]
    # comprehensions and inner functions have code of their own, among the constants
    while pending:
        code = pending.pop()
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                pending.append(constant)
