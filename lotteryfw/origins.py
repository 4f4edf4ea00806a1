"""What a ticket or a job is, before any tensor of it is known: how it comes about, as a digest.

Equal origins are equal tickets and jobs, since all else is drawn from named streams. A plan is made of them, and the
store remembers which object an origin led to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from lotteryfw.cell import Cell
from lotteryfw.jobs import Spec, numerics
from lotteryfw.views import RewindPoint

Cut = Literal["next", "random"]


class Origins:
    """The origins that come up in one cell's lab. What is the same for all of them is hashed once."""

    def __init__(self, cell: Cell, specs: Mapping[str, Spec], augment: Sequence[Spec], fingerprint: str, device: str):
        def of(*slots: str) -> str:
            return _digest(*(specs[slot].digest for slot in slots))

        self._seed = cell.seed
        self._last: tuple[tuple[str, str, RewindPoint], str] | None = None
        self._dense = _digest("dense", of("model", "initialiser", "data"), fingerprint, cell.seed)
        self._initialiser = of("initialiser")
        self._cuts: dict[Cut, str] = {
            "next": of("criterion", "scope", "mask1", "mask0", "rewind"),
            "random": of("scope", "rewind"),
        }
        clock = cell.clock
        said = (cell.batch, clock.total, clock.steps_per_epoch, cell.evaluate_every, cell.kernel, numerics(device))
        self._training = _digest(of("optimizer", "schedule"), *(spec.digest for spec in augment), *said)

    def dense(self) -> str:
        """Of the dense ticket."""
        return self._dense

    def cut(self, how: Cut, job: str, times: int) -> str:
        """Of the ticket that `times` cuts make after the training whose origin is `job`."""
        return _digest(how, job, self._cuts[how], times, self._seed)

    def control(self, name: str, ticket: str) -> str:
        """Of a control of the ticket whose origin is `ticket`."""
        return _digest("control", name, ticket, self._initialiser)

    def job(self, what: str, ticket: str, point: RewindPoint) -> str:
        """Of a training, or of the gradient after it, that starts from a ticket at a point of the schedule."""
        asked = (what, ticket, point)
        if self._last is None or self._last[0] != asked:  # a ticket is asked after twice: to be trained, to be cut
            said = (point.schedule, point.steps, point.optimizer, self._seed)
            self._last = (asked, _digest(what, ticket, self._training, *said))
        return self._last[1]


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
