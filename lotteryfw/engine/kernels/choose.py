"""Which kernel trains a job: a pure function of the job and of what the recipe asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw.cell import KERNELS
from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.kernels.fused import Fused
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.workshop import Workshop
from lotteryfw.errors import LotteryError, UsageError
from lotteryfw.jobs import Spec, Train

if TYPE_CHECKING:
    from lotteryfw.engine.kernels.kernel import Kernel

_REVISIONS = {"reference": 1, "fused": 1}
"""Raised when a kernel's results change in any bit: it is part of the key of every job that the kernel trains."""
_MAKERS: dict[str, type[Reference] | type[Fused]] = {"reference": Reference, "fused": Fused}


class Chooser:
    """Chooses for every job of a study. Remembers what each model is built like."""

    def __init__(self, shop: Workshop):
        self._shop = shop
        self._chains: dict[str, list[str] | str] = {}

    def __call__(self, job: Train, asked: str) -> str:
        """The kernel's name and revision, as it stands in the job. Raises UsageError for one that cannot do it."""
        name = asked
        why_not = self._why_not(job)
        if asked == "auto":
            name = "reference" if why_not else "fused"
        elif asked != "reference" and why_not:
            raise UsageError(f"kernel '{asked}' cannot train this: {why_not}; use auto or reference")
        return f"{name}/{_REVISIONS[name]}"

    def _why_not(self, job: Train) -> str | None:
        if job.device != "cpu":
            return "it runs on the CPU only"
        chain = self._chain(job.model, job.data)
        return chain if isinstance(chain, str) else None

    def _chain(self, model: Spec, data: Spec) -> list[str] | str:
        place = f"{model.canonical()} {data.canonical()}"
        if place not in self._chains:
            source, family = self._shop.component(data), self._shop.component(model)
            facts = source.facts(self._shop.data_folder)
            self._chains[place] = chain_of(family.build(facts.shape, facts.classes))
        return self._chains[place]


def kernel_of(job: Train, shop: Workshop) -> Kernel:
    """The kernel that a job names. Raises LotteryError for one, or a revision, that is not here."""
    name, _, revision = job.kernel.partition("/")
    if str(_REVISIONS.get(name)) != revision:
        raise LotteryError(f"the job was made for kernel {job.kernel}; this lotteryfw has {', '.join(KERNELS[1:])}")
    return _MAKERS[name](job, shop)
