"""Functions that a recipe names, as options of components: `my_models.py:build`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lotteryfw.api.errors import UsageError, nearest, printable

FUNCTION = "function"
"""The name, in pydantic's validation context, of a function that returns the `ImportedFunction` of
a text. It knows which code the user trusts."""
PATTERN = r"^.+:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
"""The form of a function's name: a Python file or a module, a colon, and the name in it."""
_FORM = "'file.py:function' or 'package.module:function'"


@dataclass(frozen=True)
class ImportedFunction:
    """A function, or a class, that a recipe names by its file or module.

    As the type of an option, it lets a recipe name code of the user's that is no component. The
    user has to trust the file or the module as any plugin file.
    """

    name: str
    """As the recipe has it: "my_models.py:build" or "package.module:function"."""
    code: str
    """The file or distribution that it comes from, and which state of it: part of the key of every
    job of the component."""
    call: Callable[..., Any] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _validated, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": PATTERN}


def split_name(text: str) -> tuple[str, str]:
    """Return the file or module of a function's name, and the name in it. Raises UsageError."""
    # The last colon counts: a path on Windows has one after its drive.
    if not re.match(PATTERN, text):
        raise UsageError(f"must be {_FORM}, got '{printable(text, 200)}'")
    where, _, name = text.rpartition(":")
    return where, name


def function_in(module: object, text: str, code: str) -> ImportedFunction:
    """Return the function of this name in a module.

    Raises UsageError where the module has none, or has something else by that name.
    """
    where, path = split_name(text)
    value: Any = module
    for name in path.split("."):
        owner = value
        value = getattr(owner, name, None)
        if value is None:
            # the closest names help only where they can be called
            functions = [key for key, item in vars(owner).items() if callable(item)]
            public = [key for key in functions if not key.startswith("_")]
            hint = nearest(name, public) or "it defines none"
            raise UsageError(f"{where} has no function '{path}'; {hint}")
    if not callable(value):
        raise UsageError(f"'{path}' of {where} is no function, but {type(value).__name__}")
    return ImportedFunction(text, code, value)


def _validated(value: Any, info: ValidationInfo) -> ImportedFunction:
    if isinstance(value, ImportedFunction):
        return value
    try:
        # a table or a number, which TOML allows there
        if not isinstance(value, str):
            raise UsageError(f"must be {_FORM}, got {value!r}")
        find = (info.context or {}).get(FUNCTION, _of_script)
        function: ImportedFunction = find(value)
    # pydantic reports it below the option's key
    except UsageError as error:
        raise PydanticCustomError("component", "{text}", {"text": str(error)}) from None
    return function


def _of_script(text: str) -> ImportedFunction:
    """Return a function that a script names, outside any recipe: it is code itself."""
    where, _ = split_name(text)
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise UsageError(f"{where} cannot be imported: {error}") from error
    return function_in(module, text, where)
