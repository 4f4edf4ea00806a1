"""The code of components that a script or a notebook defines: what results are keyed by."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from lotteryfw.api.code_files import Code, code_of
from lotteryfw.api.errors import UsageError

_MAIN = "__main__"


def session_code(cls: type) -> Code:
    """Return the code of a class that no plugin offers.

    Of a class in a module of its own, the module's file and what it imports count. In a script or a
    notebook, where everything else changes all the time, the source of the class counts, and of what
    it names: functions, classes and values of the same module. Raises UsageError where there is no
    source.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if cls.__module__ != _MAIN and file:
        return code_of([Path(file)])
    texts: dict[str, str] = {}
    _add(cls, cls.__name__, vars(sys.modules[cls.__module__]), texts)
    # sorted: the order in which names are met is that of the class, and may change with it
    names = sorted(texts)
    digest = hashlib.sha256("\n".join(map(texts.__getitem__, names)).encode())
    return Code(digest.hexdigest()[:8], tuple(names))


def _add(value: Any, name: str, names: dict[str, Any], texts: dict[str, str]) -> None:
    """Add the text of a value of the module, and of what it names, to `texts`."""
    if name in texts:
        return
    if not isinstance(value, FunctionType | type):
        # a constant; what has no value of its own as text, such as an open file, is not one
        if isinstance(value, str | int | float | bool | tuple | list | dict | None):
            texts[name] = f"{name} = {value!r}"
        return
    # what is imported from elsewhere is known by its distribution, or not at all
    if value.__module__ != _MAIN:
        return
    source = _source(value)
    if source is None:
        raise UsageError(
            f"components: the source of {name} cannot be read, by which its results would be "
            "keyed; define it in a file or a notebook"
        )
    texts[name] = f"{name}: {source}"
    for code in _codes(value):
        for used in code.co_names:
            if used in names:
                _add(names[used], used, names, texts)
    for base in value.__bases__ if isinstance(value, type) else ():
        _add(base, base.__name__, names, texts)


def _source(value: Any) -> str | None:
    """Return the source of a function or a class; None where there is none, as at a plain prompt."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        pass
    # Before Python 3.13 inspect looks for a class in the file of its module, which a notebook does
    # not have. The code of a method names its cell, whose text IPython keeps for tracebacks.
    for code in _codes(value):
        cell = "".join(linecache.getlines(code.co_filename))
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                return ast.get_source_segment(cell, node)
    return None


def _codes(value: Any) -> Iterator[CodeType]:
    """Yield the code of a function, or of all methods of a class, with the functions inside."""
    functions = [value]
    if isinstance(value, type):
        functions = []
        for member in vars(value).values():
            # class methods and static methods wrap their function
            functions.append(getattr(member, "__func__", member))
    pending = []
    for item in functions:
        if isinstance(item, FunctionType):
            pending.append(item.__code__)
    # comprehensions and inner functions have code of their own, among the constants
    while pending:
        code = pending.pop()
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                pending.append(constant)
