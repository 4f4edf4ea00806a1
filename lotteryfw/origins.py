"""What a ticket or a job is, before any tensor of it is known: how it comes about, as a digest.

Equal origins are equal tickets and jobs, since all else is drawn from named streams. A plan is made of them, and the
store remembers which object an origin led to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from lotteryfw.cell import Cell
from lotteryfw.jobs import Spec, numerics
from lotteryfw.views import RewindPoint

Cut = Literal["next", "random"]


class Origins:
    """The origins that come up in one cell's lab. What is the same for all of them is hashed once."""

    def __init__(self, cell: Cell, specs: Mapping[str, Spec], augment: Sequence[Spec], fingerprint: str, device: str):
        def of(*slots: str) -> str:
            return _together(*(specs[slot].digest for slot in slots))

        self._seed = cell.seed
        self._last: tuple[tuple[str, str, RewindPoint], str] | None = None
        self._dense = _digest("dense", of("model", "initialiser", "data", "objective"), fingerprint, cell.seed)
        self._initialiser = of("initialiser")
        learned = [slot for slot in ("parametrization", "scores", "mask_optimizer") if slot in specs]
        self._rewind = of("rewind")
        self._masking = of("mask1", "scope", *learned)
        self._cuts: dict[Cut, str] = {
            "next": of("criterion", "scope", "mask1", "mask0", "rewind"),
            "random": of("scope", "rewind"),
        }
        clock = cell.clock
        engine = (cell.kernel, cell.sparse_below, numerics(device))
        said = (cell.batch, clock.total, clock.steps_per_epoch, cell.evaluate_every, *engine)
        self._training = _digest(of("objective", "optimizer", "schedule"), *(spec.digest for spec in augment), *said)

    def dense(self) -> str:
        """Of the dense ticket."""
        return self._dense

    def cut(self, how: Cut, job: str, times: int) -> str:
        """Of the ticket that `times` cuts make after the training whose origin is `job`."""
        return _sha256(f"{how}\x1f{job}\x1f{self._cuts[how]}\x1f{times}\x1f{self._seed}")

    def scored(self, ticket: str, density: float | None, length: int | None) -> str:
        """Of the ticket whose mask is learned over the network of the ticket whose origin is `ticket`."""
        return _digest("scored", ticket, self._masking, density, length, self._seed)

    def rescored(self, job: str, density: float | None, hard: bool, length: int | None) -> str:
        """Of the ticket whose mask is learned after the one that the job of this origin learned."""
        return _digest("rescored", job, self._masking, density, hard, length, self._rewind)

    def found(self, job: str) -> str:
        """Of the ticket that the mask learned by the job of this origin makes."""
        return _digest("found", job)

    def control(self, name: str, ticket: str) -> str:
        """Of a control of the ticket whose origin is `ticket`."""
        return _digest("control", name, ticket, self._initialiser)

    def job(self, what: str, ticket: str, point: RewindPoint) -> str:
        """Of a training, or of the gradient after it, that starts from a ticket at a point of the schedule."""
        asked = (what, ticket, point)
        if self._last is None or self._last[0] != asked:  # a ticket is asked after twice: to be trained, to be cut
            said = f"{point.schedule}\x1f{point.steps}\x1f{point.optimizer}\x1f{self._seed}"
            self._last = (asked, _sha256(f"{what}\x1f{ticket}\x1f{self._training}\x1f{said}"))
        return self._last[1]


def _digest(*parts: object) -> str:
    return _sha256("\x1f".join(map(str, parts)))


@lru_cache  # the seeds of a study have the same components
def _together(*digests: str) -> str:
    return _digest(*digests)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
