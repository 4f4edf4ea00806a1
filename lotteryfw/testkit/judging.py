"""The trials of what judges networks: objectives, and analyses of finished searches."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.lab import Lab, Search
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import Ticket
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest
from lotteryfw.testkit.bench import MadeUp, make_lab
from lotteryfw.testkit.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

BATCH, CLASSES, SHAPE = 6, 4, (1, 3, 3)


class ThreeRounds(SearchAlgorithm):
    """Trains and cuts three times."""

    def search(self, lab: Lab) -> Search[None]:
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record(0, ticket, trained)
        for level in range(1, 4):
            ticket = lab.prune(ticket, trained)
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)


def try_objective(subject: Subject) -> None:
    """Its loss is a differentiable number whose sum over a batch is that of its parts; how right lies in [0, 1]."""
    import torch

    width = subject.ask(
        "output_size", SHAPE, CLASSES, on=f"inputs {list(SHAPE)} of {CLASSES} classes"
    )
    subject.demand(
        type(width) is int and width > 0, f"output_size() gave {width!r}, not a number of outputs"
    )
    inputs = torch.rand(BATCH, *SHAPE, generator=stream("testkit", "inputs"))
    labels = torch.arange(BATCH) % CLASSES
    outputs = torch.randn(BATCH, width, generator=stream("testkit", "outputs"))

    def loss(rows: slice, reduction: str, of: Tensor = outputs) -> Tensor:
        value: Tensor = subject.ask(
            "loss", of[rows], inputs[rows], labels[rows], reduction, on="a batch"
        )
        number = (
            isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.float32
        )
        subject.demand(
            number and bool(value.isfinite()),
            f"loss() gave {value!r}, not one finite float32 number",
        )
        return value

    everything, parts = (
        loss(slice(None), "sum"),
        [loss(slice(i, i + 1), "sum") for i in range(BATCH)],
    )
    subject.demand(
        torch.allclose(everything, torch.stack(parts).sum(), atol=1e-4),
        'loss(…, "sum") of a batch is not the sum of its examples\' losses',
    )
    mean = loss(slice(None), "mean")
    subject.demand(
        torch.allclose(mean, everything / BATCH, atol=1e-5),
        'loss(…, "mean") is not the sum over the count',
    )
    layer = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(slice(None), "mean", layer), layer)
    subject.demand(bool(slope.isfinite().all()), "the gradient of loss() is not finite")
    right = subject.ask("correct", outputs, inputs, labels, on="a batch")
    fits = isinstance(right, torch.Tensor) and right.shape == (BATCH,)
    subject.demand(
        fits and bool(((right >= 0) & (right <= 1)).all()),
        f"correct() gave {right!r}, not [n] in [0, 1]",
    )


def try_analysis(subject: Subject) -> None:
    """It finds numbers in the levels it is shown, the same ones each time, and asks for jobs only."""
    lab, levels = _finished()
    for method in ("levels", "across"):
        found = [_found(subject, method, lab, levels) for _ in range(2)]
        subject.demand(
            found[0] == found[1], f"{method}() found other things when it was asked again"
        )
        for finding in found[0]:
            made = isinstance(finding, AnalysisResult) and finding.level in levels
            subject.demand(
                made,
                f"{method}() gave {finding!r}, not an AnalysisResult of a level that it was shown",
            )
            values = finding.value if isinstance(finding.value, tuple) else (finding.value,)
            plain = all(isinstance(value, int | float) and isfinite(value) for value in values)
            subject.demand(
                plain, f"{method}(): the value of '{finding.figure}' is not made of finite numbers"
            )


def _finished() -> tuple[CellLab, list[LevelResult]]:
    """A search played to its end on made-up trainings."""
    lab = make_lab(search=ThreeRounds())
    _drained(lab.cell.search.search(lab))

    def kept(ticket: Ticket) -> Ticket:
        return replace(ticket)

    return lab, [
        LevelResult(
            lab.cell.study, lab.cell.id, lab.cell.axes, lab.seed, record.level, record.variant, record.ticket.cut,
            record.trained.outcome, partial(kept, record.ticket),
        )
        for record in lab.records
    ]  # fmt: skip


def _found(
    subject: Subject, method: str, lab: CellLab, levels: list[LevelResult]
) -> list[AnalysisResult]:
    if method == "across":
        found: Iterable[AnalysisResult] = subject.ask("across", levels, on="a finished study")
        return list(found)
    search = subject.ask("levels", lab, levels, on="a finished search")
    subject.demand(isinstance(search, Generator), "levels() is no generator: where it asks for nothing, it needs a "
                   "`yield from ()`")  # fmt: skip
    answer = _drained(search, subject)
    subject.demand(
        isinstance(answer, list),
        f"levels() returned {type(answer).__name__}, not a list of findings",
    )
    return list(answer)


def _drained(search: Any, subject: Subject | None = None) -> Any:
    """Answers everything that a generator asks for; what it returns."""
    try:
        asked = next(search)
        while True:
            if subject is not None:
                jobs = all(isinstance(request, JobRequest) for request in asked)
                subject.demand(jobs, "levels() asks for other things than jobs")
            asked = search.send([MadeUp(request.job) for request in asked])
    except StopIteration as end:
        return end.value
