"""Which kernel trains a job: a pure function of the job and of what the recipe asks for."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.kernels.fused import Fused
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.kernels.sparse import Sparse, is_worth_it, why_not
from lotteryfw.engine.workshop import Workshop
from lotteryfw.errors import LotteryError, UsageError
from lotteryfw.jobs import Spec, Train

if TYPE_CHECKING:
    from lotteryfw.engine.kernels.kernel import Kernel

_REVISIONS = {"reference": 1, "fused": 1, "sparse": 1}
"""Raised when a kernel's results change in any bit: it is part of the key of every job that the kernel trains."""
_MAKERS: dict[str, type[Reference] | type[Fused] | type[Sparse]] = {
    "reference": Reference, "fused": Fused, "sparse": Sparse
}  # fmt: skip


class Chooser:
    """Chooses for every job of a study. Remembers what each model is built like."""

    def __init__(self, shop: Workshop):
        self._shop = shop
        self._chains: dict[str, list[str] | str] = {}

    def __call__(self, job: Train, asked: str) -> str:
        """The kernel's name and revision, as it stands in the job. Raises UsageError for one that cannot do it."""
        name = self._fastest(job) if asked == "auto" else asked
        if refusal := self._why_not(job, name):
            raise UsageError(f"kernel '{name}' cannot train this: {refusal}; use auto or reference")
        return _in_full(name)

    def _fastest(self, job: Train) -> str:
        if self._why_not(job, "fused"):
            return "reference"
        return "sparse" if is_worth_it(job) and not self._why_not(job, "sparse") else "fused"

    def _why_not(self, job: Train, name: str) -> str | None:
        if name == "reference":
            return None
        if job.device != "cpu":
            return "it runs on the CPU only"
        chain = self._chain(job.model, job.data)
        if isinstance(chain, str):
            return chain
        return why_not(job, self._shop) if name == "sparse" else None

    def _chain(self, model: Spec, data: Spec) -> list[str] | str:
        place = f"{model.canonical()} {data.canonical()}"
        if place not in self._chains:
            facts = self._shop.component(data).facts(self._shop.data_folder)
            self._chains[place] = chain_of(self._shop.network(model, facts))
        return self._chains[place]


def kernel_of(job: Train, shop: Workshop) -> Kernel:
    """The kernel that a job names. Raises LotteryError for one, or a revision, that is not here."""
    here = {_in_full(name): maker for name, maker in _MAKERS.items()}
    if job.kernel not in here:
        raise LotteryError(f"the job was made for kernel {job.kernel}; this lotteryfw has {', '.join(here)}")
    return here[job.kernel](job, shop)


@cache
def _in_full(name: str) -> str:
    """A kernel's name and revision. What compiles the sparse kernel's loops is part of what decides their bits."""
    compiler = f"+numba{version('numba')}" if name == "sparse" and find_spec("numba") else ""
    return f"{name}/{_REVISIONS[name]}{compiler}"
