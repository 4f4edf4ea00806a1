"""The sets of loops that the products of an MLP can be made of, by the packages that are here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from lotteryfw.engine.kernels.sparse.loops import Loops

Backend = Literal["numba", "torch"]


@cache
def backends() -> dict[Backend, str]:
    """Return the sets of loops that can run here, the faster one first, by their names in a job.

    The version of numba is in the name, since the compiler of the loops is a part of what decides
    their bits. That of torch is in every job.
    """
    numba: dict[Backend, str] = {"numba": f"numba{version('numba')}"} if find_spec("numba") else {}
    return numba | {"torch": "torch"}


def fastest_loops() -> str:
    """Return the name, in a job, of the fastest loops that are here."""
    return next(iter(backends().values()))


def loops_of(backend: Backend) -> Loops:
    """Return the loops of a back end that is installed."""
    # numba takes a second to import, and may be missing.
    if backend == "numba":
        from lotteryfw.engine.kernels.sparse import numba_loops

        return numba_loops
    from lotteryfw.engine.kernels.sparse import torch_loops

    return torch_loops


def loops_of_job(options: Mapping[str, Any]) -> Loops:
    """Return the loops that a job was made for, by the options of its kernel."""
    # The job names them with their version, whatever is installed now.
    by_name = {name: backend for backend, name in backends().items()}
    return loops_of(by_name[options["loops"]])


def loops_unavailable(options: Mapping[str, Any]) -> str | None:
    """Return how to get the loops of a job, by the options of its kernel; None if they are here."""
    loops = str(options.get("loops"))
    if loops in backends().values():
        return None
    _, _, numba = loops.partition("numba")
    return f'pip install "numba=={numba}"' if numba else f"it has no loops '{loops}'"
