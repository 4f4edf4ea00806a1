"""The model family of a user's own function, without a plugin."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from lotteryfw import DatasetInfo, ImportedFunction, ModelFamily, UsageError

if TYPE_CHECKING:
    from torch import nn

OF_DATA = ("shape", "classes", "num_classes", "vocabulary")
"""Parameters that a function gets from the data, if it has them and the recipe gives none.

`num_classes` is what torchvision and timm call the number of classes."""
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class Factory(ModelFamily):
    """Builds the network that a function of the user's returns.

    The function, or a class of networks, gets `arguments` by keyword, and of `shape`,
    `classes`, `num_classes` and `vocabulary` those that it has a parameter for.
    """

    use = "factory"
    formula = "function(shape=…, classes=…, **arguments)"
    source = "the user's own network"

    function: ImportedFunction
    """A function or a class: "my_models.py:build" or "package.module:function". The file or the
    module has to be named with --trust."""
    arguments: Annotated[dict[str, Any], Field(validate_default=True)] = {}
    """Keyword arguments of the function."""

    @field_validator("arguments")
    @classmethod
    def _fit_the_function(cls, arguments: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        function = info.data.get("function")
        # a function that is not there was reported, and has no parameters to compare with
        if function is not None:
            _check_arguments(function, arguments)
        return arguments

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return self._build({"shape": shape, "classes": classes, "num_classes": classes})

    def build_for(self, info: DatasetInfo, outputs: int) -> nn.Module:
        """Return the network; of tokens, if the function has a parameter `vocabulary`."""
        if not info.vocabulary:
            return self.build(info.shape, outputs)
        # without it, the function builds a network of numbers, which tokens are not
        if "vocabulary" not in _parameters(self.function):
            raise UsageError(
                f"the inputs are tokens, and {self.function} has no parameter 'vocabulary'"
            )
        data = {"shape": info.shape, "classes": outputs, "num_classes": outputs}
        return self._build({**data, "vocabulary": info.vocabulary})

    def _build(self, data: Mapping[str, Any]) -> nn.Module:
        from torch import nn

        parameters = _parameters(self.function)
        # what the recipe gives goes before what the data would
        of_data = {name: value for name, value in data.items() if name in parameters}
        network = self.function.call(**{**of_data, **self.arguments})
        if not isinstance(network, nn.Module):
            raise UsageError(f"{self.function} returned {type(network).__name__}, not an nn.Module")
        return network


def _parameters(function: ImportedFunction) -> Mapping[str, Parameter]:
    """Return the parameters of a function by name. Raises ValueError where it tells none."""
    try:
        return inspect.signature(function.call).parameters
    except (TypeError, ValueError):
        raise ValueError(f"the parameters of {function} cannot be read") from None


def _check_arguments(function: ImportedFunction, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an argument that a function does not take, or lacks."""
    parameters = _parameters(function)
    named = [name for name, parameter in parameters.items() if parameter.kind in _NAMED]
    takes_any = any(item.kind is Parameter.VAR_KEYWORD for item in parameters.values())
    # checked here and not by a call, which could build a large network
    unknown = [name for name in arguments if name not in named]
    if unknown and not takes_any:
        listed = ", ".join(named) or "none"
        raise ValueError(f"{function} has no parameter '{unknown[0]}'; its parameters: {listed}")
    for name, parameter in parameters.items():
        variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if parameter.default is not Parameter.empty or parameter.kind in variable:
            continue
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            raise ValueError(f"{function} has '{name}', which cannot be given by name")
        if name not in arguments and name not in OF_DATA:
            raise ValueError(f"{function} needs '{name}', which has no default")
