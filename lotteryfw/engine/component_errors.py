"""Errors that come out of components: the traceback says which component it was.

It is looked at once, when a job ends with an error, so that the steps of a training do nothing for
it. Importing this module does not import torch.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from lotteryfw.api.component import Component
from lotteryfw.api.errors import (
    ContractError,
    LotteryError,
    PluginError,
    UsageError,
    says_memory_is_full,
)
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Job, Train

if TYPE_CHECKING:
    from lotteryfw.engine.runtime import EngineContext

_METHODS = {"_wrapped_call_impl": "forward", "_call_impl": "forward", "wrapper": "step"}
"""By functions of torch that call methods of a module or an optimizer, the names of these."""


class WrongResult(Exception):
    """A component returned what its kind does not allow.

    It is raised where the distribution is not known; `naming_components` adds it.
    """

    def __init__(self, component: Component, problem: str):
        """`problem` begins with the method, as "loss() returned None"."""
        super().__init__(problem)
        self.component = component


class _Call(NamedTuple):
    """A method of a component, of a network or of an optimizer that an error came out of."""

    holder: object
    method: str


@contextmanager
def naming_components(job: Job, context: EngineContext) -> Iterator[None]:
    """Report what a component raises while `job` runs under its name and distribution.

    Errors of lotteryfw and of CUDA pass as they are, and those that say that memory is full: the
    component that ran then is mostly not their reason.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        named = _named(error, job, context)
        if named is None:
            raise
        raise named from error


def described(result: object) -> str:
    """Return what a component returned in words: its type, and of a tensor dtype and shape."""
    if isinstance(result, _of_torch("Tensor")):
        tensor: Any = result
        return f"a {tensor.dtype} tensor of shape {list(tensor.shape)}"
    return type(result).__name__


def exit_error(error: SystemExit, name: Callable[[Component], str] | None = None) -> PluginError:
    """Return the error to report for a `sys.exit` that was called while a component was used.

    The component is the one whose method was running, as far as the traceback tells. `name` returns
    how the message calls a component; by default by its kind and name.
    """
    call = _call(error.__traceback__)
    where = "a component, or what it called,"
    if call is not None and isinstance(call.holder, Component):
        where = f"{(name or _short_name)(call.holder)} in {call.method}()"
    return _exit_error(error, where)


def _exit_error(error: SystemExit, where: str) -> PluginError:
    plugin_error = PluginError(
        f"{where} called sys.exit({error.code!r}); it must raise an exception instead"
    )
    plugin_error.__cause__ = error
    return plugin_error


def _named(error: BaseException, job: Job, context: EngineContext) -> PluginError | None:
    """Return the error to report in the place of another; None where that is to pass."""
    if isinstance(error, WrongResult):
        return ContractError(f"{_full_name(error.component, context)}: {error}")
    if _passes(error):
        return None
    call = _call(error.__traceback__)
    who = "" if call is None else _who(call.holder, job, context)
    if isinstance(error, SystemExit):
        where = f"{who} in {call.method}()" if call and who else "a component, or what it called,"
        return _exit_error(error, where)
    if call is None or not who:
        return None
    return PluginError(f"{who} broke in {call.method}(): {type(error).__name__}: {error}")


def _passes(error: BaseException) -> bool:
    """Return whether an error is none of a component's own."""
    is_own = isinstance(error, LotteryError) or type(error).__module__.startswith("lotteryfw.")
    is_cuda = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return is_own or is_cuda or says_memory_is_full(error)


def _call(trace: TracebackType | None) -> _Call | None:
    """Return the innermost component, network or optimizer that the engine, or another, called."""
    torch_types = _of_torch("nn", "Module") + _of_torch("optim", "Optimizer")
    call, is_engine = None, True
    for frame, _ in traceback.walk_tb(trace):
        holder = frame.f_locals.get("self")
        method = frame.f_code.co_name
        if isinstance(holder, Component):
            # Of a component that calls methods of its own, the first is the one that was asked for.
            if is_engine or call is None or call.holder is not holder:
                call = _Call(holder, method)
            is_engine = False
        elif isinstance(holder, torch_types):
            # A module that a component calls, such as a loss of torch, is a part of the component.
            if is_engine:
                call = _Call(holder, _METHODS.get(method, method))
            is_engine = False
        elif str(frame.f_globals.get("__name__")).startswith("lotteryfw.engine."):
            is_engine = True
    return call


def _who(holder: object, job: Job, context: EngineContext) -> str:
    """Return the component that a call belongs to, as messages name it; "" for none of the job."""
    if isinstance(holder, Component):
        return _full_name(holder, context)
    if isinstance(holder, _of_torch("nn", "Module")):
        return describe(job.model)
    return describe(job.optimizer) if isinstance(job, Train) else ""


def _full_name(component: Component, context: EngineContext) -> str:
    """Return a component as `describe` returns that of a job: kind, name, provider."""
    try:
        name = context.registry.offer_of(component).full_name
        return f"{component.kind} '{name}' of {context.registry.provider_of(component)}"
    except UsageError:
        # made by hand, as in a test
        return _short_name(component)


def _short_name(component: Component) -> str:
    return f"{component.kind} '{component.use}'"


def _of_torch(*path: str) -> tuple[type, ...]:
    """Return a class of torch, as "nn", "Module"; none where torch was not imported."""
    part: object = sys.modules.get("torch")
    for name in path:
        part = getattr(part, name, None)
    return (part,) if isinstance(part, type) else ()
