"""Registered components: what a class must have to be one, and what messages call its kind."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lotteryfw.api.code_files import Code
from lotteryfw.api.component import Component
from lotteryfw.api.errors import nearest
from lotteryfw.api.kinds import SearchAlgorithm, kinds
from lotteryfw.api.layers import Need
from lotteryfw.registry.plugins import Plugin, Refused

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NOUNS = {
    "data": "data source",
    "mask0": "mask-0 action",
    "mask1": "mask-1 action",
    "rewind": "rewind policy",
    "search": "search algorithm",
}
"""The words of messages for a kind whose name in recipes is no noun."""
_LISTED = {"augmentation", "metric", "control", "analysis"}
PARTS = (kinds().keys() - _LISTED) | {"scores", "mask_optimizer"}
"""The parts of a recipe that a search may require: those that are one component."""


@dataclass(frozen=True)
class RegisteredComponent:
    """A component that recipes can name, and who provides it.

    `digest` tells two states of unreleased code apart: 8 hex digits of the SHA-256 of `files`, both
    empty for a released distribution.
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
        """The distribution whose code it is, and which state of it."""
        provider = f"{self.distribution}=={self.version}"
        return f"{provider}+{self.digest}" if self.digest else provider


def register(
    cls: object,
    plugin: Plugin,
    code_of: Callable[[type], Code | None],
    taken: Iterable[RegisteredComponent],
) -> RegisteredComponent:
    """Return a plugin's class as a registered component.

    Raises Refused if it is not a complete component with a valid name, or if the distribution has one
    of this kind and name among those that are `taken`.
    """
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise Refused(f"{cls!r} is not a component class")
    kind = _kind(cls)
    if not isinstance(cls.use, str) or not cls.use:
        raise Refused(f'{cls.__name__} has no name: it needs a line like `use = "my_{kind}"`')
    if not _NAME.fullmatch(cls.use):
        raise Refused(
            f"{cls.__name__}: `use` is '{cls.use}', but names are lower-case letters, digits and _"
        )
    hidden = sorted(name for name in cls.model_fields if hasattr(kinds()[kind], name))
    if hidden:
        raise Refused(
            f"{cls.__name__}: the option '{hidden[0]}' would hide what every {noun(kind)} has under "
            "that name: call it something else"
        )
    _check_attributes(cls)
    # pydantic would raise TypeError only when a recipe uses it
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise Refused(f"{cls.__name__} does not define {missing}")

    code = code_of(cls) or Code("", ())
    component = RegisteredComponent(
        cls=cls,
        kind=kind,
        name=cls.use,
        distribution=plugin.distribution,
        version=plugin.version,
        plugin=plugin.name,
        digest=code.digest,
        files=code.files,
    )
    for other in taken:
        if (other.kind, other.full_name) == (component.kind, component.full_name):
            raise Refused(
                f"{cls.__name__}: {plugin.distribution} offers a {kind} '{component.name}' already"
            )
    return component


def _check_attributes(cls: type[Component]) -> None:
    """Raise Refused for an attribute of a class that recipes are checked by, and that is unusable."""
    needs: object = getattr(cls, "needs", frozenset())
    is_set = isinstance(needs, frozenset | set) and all(isinstance(need, Need) for need in needs)
    if not (is_set or isinstance(needs, property)):
        raise Refused(f"{cls.__name__}: `needs` is {needs!r}, not a frozenset of Need")
    if not issubclass(cls, SearchAlgorithm):
        return

    required: object = cls.required
    if not isinstance(required, Mapping):
        raise Refused(
            f"{cls.__name__}: `required` is {required!r}, not a dict of parts of a recipe, each "
            "with the reason"
        )
    optional: object = cls.optional
    if not isinstance(optional, tuple | list | set | frozenset):
        raise Refused(
            f"{cls.__name__}: `optional` is {optional!r}, not a tuple of parts of a recipe"
        )
    for name, parts in (("required", required), ("optional", optional)):
        for part in parts:
            if part not in PARTS:
                raise Refused(
                    f"{cls.__name__}: `{name}` has {part!r}, which is no part of a recipe; "
                    f"{nearest(str(part), PARTS)}"
                )


def _kind(cls: type[Component]) -> str:
    bases = kinds()
    matching = [name for name, base in bases.items() if issubclass(cls, base) and cls is not base]
    if len(matching) != 1:
        choices = ", ".join(base.__name__ for base in bases.values())
        raise Refused(f"{cls.__name__} must subclass one kind: {choices}")
    return matching[0]


def in_order(offers: Iterable[RegisteredComponent]) -> list[RegisteredComponent]:
    """Return components kind by kind, in the order of the contract, then by name."""
    order = list(kinds())
    return sorted(
        offers, key=lambda offer: (order.index(offer.kind), offer.name, offer.distribution)
    )


def noun(kind: str) -> str:
    """Return the word for a component of this kind: "rewind policy" for "rewind"."""
    return _NOUNS.get(kind, kind)


def noun_with_article(kind: str) -> str:
    """Return "a rewind policy" for "rewind", "an optimizer" for "optimizer"."""
    word = noun(kind)
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
