"""Which kernel trains a job: a pure function of the job and of what the recipe asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine.kernels import compact, lockstep
from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.kernels.fused import Fused
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.kernels.scores import Scores
from lotteryfw.engine.kernels.shrunk import Layer, layers_of
from lotteryfw.engine.kernels.sparse import (
    SPARSE_BELOW,
    Backend,
    Sparse,
    backends,
    is_worth_it,
    why_not,
)
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    from lotteryfw.engine.kernels.kernel import Kernel

_REVISIONS = {"compact": 1, "reference": 1, "fused": 1, "lockstep": 1, "scores": 1, "sparse": 1}
"""Raised when a kernel's results change in any bit: it is part of the key of every job that the kernel trains."""
_BUILT_IN_LOSSES = ("cross_entropy",)
"""The losses that the kernels fused, sparse and lockstep compute themselves."""
_PLAIN: dict[str, Callable[[Train, Workshop], Kernel]] = {
    "reference": Reference, "compact": compact.Compact, "fused": Fused, "lockstep": lockstep.alone, "scores": Scores
}  # fmt: skip


class Chooser:
    """Chooses for every job of a study. Remembers what each model is built like."""

    def __init__(self, shop: Workshop):
        self._shop = shop
        self._built: dict[str, tuple[list[str] | str, list[Layer] | str]] = {}

    def __call__(self, job: Train, asked: str, sparse_below: float | None = None) -> str:
        """The kernel's name and revision, as it stands in the job. Raises UsageError for one that cannot do it.

        `sparse_below`: the density below which a layer is worth sparse products; None for the back end's own figure.
        """
        if job.parametrization is not None and asked in ("auto", "reference"):
            return _in_full("scores")
        backend = next(iter(backends()))
        below = SPARSE_BELOW[backend] if sparse_below is None else sparse_below
        if asked != "auto" and (refusal := self._why_not(job, asked)):
            raise UsageError(
                f"kernel '{asked}' cannot train this: {refusal}; use auto or reference"
            )
        name = self._fastest(job, below) if asked == "auto" else asked
        return _sparse_in_full(backend, below) if name == "sparse" else _in_full(name)

    def _fastest(self, job: Train, below: float) -> str:
        if is_worth_it(job, below) and not self._why_not(job, "sparse"):
            return "sparse"
        if (job.device != "cpu" or lockstep.is_small(job)) and not self._why_not(job, "lockstep"):
            return "lockstep"
        if not self._why_not(job, "fused"):
            return "fused"
        _, layers = self._structure(job)
        return (
            "compact"
            if compact.is_worth_it(job, layers) and not self._why_not(job, "compact")
            else "reference"
        )

    def _why_not(self, job: Train, name: str) -> str | None:
        if name == "reference":
            return None
        if job.parametrization is not None:
            return "it trains weights, and here masks are learned"
        chain, layers = self._structure(job)
        if name == "compact":
            return layers if isinstance(layers, str) else compact.unfit_optimizer(job, self._shop)
        if self._shop.component(job.objective).closed_form() not in _BUILT_IN_LOSSES:
            return f"it has cross-entropy built in, and the objective is '{job.objective.use}'"
        if job.device != "cpu" and name != "lockstep":
            return "it runs on the CPU only"
        if isinstance(chain, str):
            return chain
        if name == "lockstep":
            return lockstep.why_not(job, chain, self._shop)
        return why_not(job, self._shop) if name == "sparse" else None

    def _structure(self, job: Train) -> tuple[list[str] | str, list[Layer] | str]:
        """The network's layers as `chain_of` and as `layers_of` tell them."""
        place = f"{job.model.digest} {job.data.digest} {job.objective.digest}"
        if place not in self._built:
            facts = self._shop.component(job.data).facts(self._shop.data_folder)
            network = self._shop.network(job.model, facts, job.objective)
            self._built[place] = chain_of(network), layers_of(network, facts.shape)
        return self._built[place]


def engine_version(code: str) -> str:
    """What decides, beside a job and a recipe, which kernel trains the job and with which bits, as text.

    `code` tells states of lotteryfw's code apart. Does not import torch, whose version is in every key.
    """
    kernels = [*sorted(_REVISIONS.items()), *backends().items(), *SPARSE_BELOW.items()]
    packages = [(name, version(name)) for name in ("numpy", "torchvision") if find_spec(name)]
    return json.dumps([code, kernels, packages])


def kernel_of(job: Train, shop: Workshop) -> Kernel:
    """The kernel that a job names. Raises LotteryError for one, or a revision, that is not here."""
    plain = {_in_full(name): maker for name, maker in _PLAIN.items()}
    if job.kernel in plain:
        return plain[job.kernel](job, shop)
    sparse = {_sparse_in_full(backend, SPARSE_BELOW[backend]): backend for backend in backends()}
    name, _, below = job.kernel.partition("<")
    if name in sparse:
        return Sparse(job, shop, sparse[name], float(below or SPARSE_BELOW[sparse[name]]))
    _, _, numba = name.partition("+numba")
    remedy = f'; for that one: pip install "numba=={numba}"' if numba else ""
    raise LotteryError(
        f"the job was made for kernel {job.kernel}; this lotteryfw has {', '.join([*plain, *sparse])}{remedy}"
    )


def _in_full(name: str) -> str:
    """A kernel's name and revision."""
    return f"{name}/{_REVISIONS[name]}"


def _sparse_in_full(backend: Backend, below: float) -> str:
    """All that decides the sparse kernel's bits: its loops, and a threshold other than their default."""
    said = "" if below == SPARSE_BELOW[backend] else f"<{below}"
    return f"{_in_full('sparse')}+{backends()[backend]}{said}"
