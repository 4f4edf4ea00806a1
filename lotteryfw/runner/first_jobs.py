"""The trainings that a cell begins with: to try a kernel on them, or to time their steps."""

from __future__ import annotations

from lotteryfw.api.errors import NotKnownYet
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest


def deciding_parts(cell: Cell) -> tuple[int, ...]:
    """Return what is equal for cells of a study whose first jobs have the same kernel and cost.

    That holds within one arithmetic, batch size and number of devices. The cells of a study share
    their components, so an identity tells two apart.
    """
    parts = (
        cell.model, cell.data, cell.search, cell.optimizer, cell.mask_optimizer,
        cell.parametrization, cell.objective, cell.mask_update,
    )  # fmt: skip
    return tuple(map(id, parts))


def first_jobs(lab: CellLab) -> list[Train]:
    """Return the first training of weights and the first of a mask that a cell's search asks for.

    The one of weights is that of the dense network if the network that is asked for is not known
    before something was trained; one of a mask is then left out. Imports torch. Raises UsageError
    for a kernel that cannot train one of them.
    """
    first: dict[bool, JobRequest] = {}
    for request in plan_cell(lab).requests:
        # what is measured as it is takes no step
        if request.kind == Train.kind and request.steps > 0:
            first.setdefault(request.ticket.learns_mask, request)
    jobs = []
    for learns_mask, request in first.items():
        try:
            job = request.job
        except NotKnownYet:
            if learns_mask:
                continue
            job = lab.job(lab.dense())
        assert isinstance(job, Train)
        jobs.append(job)
    return jobs
