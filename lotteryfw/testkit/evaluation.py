"""Trials for what judges networks: objectives, and analyses of finished searches."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, cast

from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.kinds import Analysis, Metric, Objective, SearchAlgorithm
from lotteryfw.api.lab import Lab, Search
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import Ticket
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest
from lotteryfw.testkit.closed_forms import try_objective_form
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fake_lab import FakeOutcome, make_lab
from lotteryfw.testkit.fixtures import LAYERS

if TYPE_CHECKING:
    from torch import Tensor

BATCH, CLASSES, SHAPE, TEXT_SHAPE = 6, 4, (1, 3, 3), (5,)
EXAMPLES, MANY_CLASSES = 40, 12
"""The examples and classes that metrics are tried on: top-5 says nothing of four classes."""


class ThreeRounds(SearchAlgorithm):
    """Trains and prunes three times."""

    def search(self, lab: Lab) -> Search[None]:
        ticket = lab.dense()
        trained = yield from lab.train(ticket)
        lab.record(0, ticket, trained)
        for level in range(1, 4):
            ticket = lab.prune(ticket, trained)
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)


def try_objective(trial: ComponentTrial) -> None:
    """Require a differentiable loss that adds up over a batch, and correctness in [0, 1]."""
    import torch

    inputs, labels = _examples_for(trial)
    shape = tuple(inputs.shape[1:])
    width = trial.call(
        "output_size", shape, CLASSES, on=f"inputs {list(shape)} of {CLASSES} classes"
    )
    trial.require(
        type(width) is int and width > 0, f"output_size() gave {width!r}, not a number of outputs"
    )
    outputs = torch.randn(BATCH, width, generator=stream("testkit", "outputs"))

    def loss(rows: slice, reduction: str, outputs: Tensor = outputs) -> Tensor:
        value: Tensor = trial.call(
            "loss", outputs[rows], inputs[rows], labels[rows], reduction, on="a batch"
        )
        is_number = (
            isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.float32
        )
        trial.require(
            is_number and bool(value.isfinite()),
            f"loss() gave {value!r}, not one finite float32 number",
        )
        return value

    # the engine adds up losses over batches of any size, the last one smaller than the others
    whole = slice(None)
    total = loss(whole, "sum")
    by_example = sum(float(loss(slice(row, row + 1), "sum")) for row in range(BATCH))
    # float32 sums in another order differ in their last bits
    trial.require(
        abs(float(total) - by_example) <= 1e-4 + 1e-5 * abs(by_example),
        'loss(…, "sum") of a batch is not the sum of its examples\' losses',
    )
    trial.require(
        torch.allclose(loss(whole, "mean"), total / BATCH, atol=1e-5),
        'loss(…, "mean") is not the sum over the count',
    )

    # a gradient that is NaN would end every training at its first step
    leaf = outputs.clone().requires_grad_()
    is_differentiable = loss(whole, "mean", leaf).requires_grad
    trial.require(is_differentiable, "loss() has no gradient: it does not depend on `outputs`")
    (gradient,) = torch.autograd.grad(loss(whole, "mean", leaf), leaf)
    trial.require(bool(gradient.isfinite().all()), "the gradient of loss() is not finite")

    _require_names(trial)
    _try_penalty(trial)
    teacher = torch.randn(BATCH, width, generator=stream("testkit", "teacher"))
    taught = trial.call("taught_loss", leaf, teacher, inputs, labels, on="a batch with a teacher")
    is_number = isinstance(taught, torch.Tensor) and taught.dim() == 0
    trial.require(
        is_number and bool(taught.isfinite()),
        f"taught_loss() gave {taught!r}, not one finite number",
    )

    correct = trial.call("correct", outputs, inputs, labels, on="a batch")
    has_shape = isinstance(correct, torch.Tensor) and correct.shape == (BATCH,)
    trial.require(
        has_shape and bool(((correct >= 0) & (correct <= 1)).all()),
        f"correct() gave {correct!r}, not [n] in [0, 1]",
    )
    try_objective_form(trial, outputs, inputs, labels)


def _examples_for(trial: ComponentTrial) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of the first kind that the objective's `why_not` does not refuse."""
    import torch

    objective = cast(Objective, trial.component)
    rng = stream("testkit", "labels")
    classes = torch.arange(BATCH) % CLASSES
    images = torch.rand(BATCH, *SHAPE, generator=stream("testkit", "inputs"))
    # as many tokens as classes, since an objective is told the number of classes only
    tokens = torch.randint(CLASSES, (BATCH, *TEXT_SHAPE), generator=stream("testkit", "tokens"))
    reasons = []
    for inputs, labels in (
        (images, classes),
        (images, torch.randint(CLASSES, (BATCH, *SHAPE), generator=rng)),
        (images, torch.randint(CLASSES, (BATCH, 2), generator=rng)),
        (images, torch.randn(BATCH, generator=rng)),
        (images, torch.randn(BATCH, CLASSES, generator=rng)),
        (tokens, classes),
        (tokens, torch.randint(CLASSES, (BATCH, *TEXT_SHAPE), generator=rng)),
    ):
        info = DatasetInfo(
            tuple(inputs.shape[1:]),
            CLASSES,
            BATCH,
            BATCH,
            BATCH,
            label_shape=tuple(labels.shape[1:]),
            vocabulary=CLASSES if inputs is tokens else 0,
        )
        on = f"inputs {list(inputs.shape)} and labels {list(labels.shape)}"
        reason = trial.call("why_not", info, on=on)
        # an objective that reads classes has none of numbers that are no integers
        if reason is None and (labels.dtype == torch.int64 or not objective.labels_are_classes):
            return inputs, labels
        reasons.append(str(reason))
    trial.require(False, f"why_not() refuses data of every kind: {'; '.join(reasons)}")
    return inputs, labels


def _require_names(trial: ComponentTrial) -> None:
    """Require names that tables and axes can show: one line of words."""
    objective = cast(Objective, trial.component)
    name, unit = objective.figure_name, objective.loss_unit
    is_name = isinstance(name, str) and name.strip() == name != "" and name.isprintable()
    trial.require(is_name, f'figure_name must be a name in words, such as "accuracy", not {name!r}')
    # "test accuracy" is made of the part's name and this one
    for part in ("test ", "validation ", "train "):
        trial.require(
            not name.startswith(part),
            f"figure_name is '{name}', but reports write '{part.strip()}' before it",
        )
    # it stands in brackets behind the loss, on axes
    is_unit = isinstance(unit, str) and unit.strip() == unit and (unit.isprintable() or not unit)
    trial.require(is_unit, f'loss_unit must be a unit, or "" for none, not {unit!r}')


def _try_penalty(trial: ComponentTrial) -> None:
    """Require a penalty that is None, or a finite number with a finite gradient."""
    import torch

    weights = {}
    for layer in LAYERS:
        weight = torch.randn(layer.shape, generator=stream("testkit", "weights", layer.name))
        # the weights of a whole unit are 0 once it is pruned
        weight[0] = 0
        weights[layer.name] = weight.requires_grad_()
    penalty = trial.call("penalty", weights, on="the weights of a network")
    if penalty is None:
        return
    is_number = isinstance(penalty, torch.Tensor) and penalty.dim() == 0
    trial.require(
        is_number and bool(penalty.isfinite()),
        f"penalty() gave {penalty!r}, not one finite number",
    )
    trial.require(penalty.requires_grad, "penalty() has no gradient: it depends on no weight")
    gradients = torch.autograd.grad(penalty, list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        is_finite = gradient is None or bool(gradient.isfinite().all())
        trial.require(is_finite, f"the gradient of penalty() on {name} is not finite")


def try_metric(trial: ComponentTrial) -> None:
    """Require values by example that do not depend on the batch, and a result that is a number."""
    import torch

    metric = cast(Metric, trial.component)
    name = trial.call("name", on="its options")
    is_name = isinstance(name, str) and re.fullmatch("[a-z0-9_]+", name)
    trial.require(
        bool(is_name), f"name() gave {name!r}; a name has lower-case letters, digits and _"
    )
    trial.require(
        metric.unit in ("share", "number"),
        f"""its unit is {metric.unit!r}, not "share" or "number\"""",
    )
    reason = trial.call("why_not", MANY_CLASSES, on=f"{MANY_CLASSES} classes")
    trial.require(
        reason is None or isinstance(reason, str), f"why_not() gave {reason!r}, not a text or None"
    )

    inputs = torch.rand(EXAMPLES, *SHAPE, generator=stream("testkit", "inputs"))
    labels = torch.arange(EXAMPLES) % MANY_CLASSES
    # outputs that are not logits of classes are as many as the numbers of an input, as in pictures
    width = MANY_CLASSES if metric.needs_classes else prod(SHAPE)
    outputs = torch.randn(EXAMPLES, width, generator=stream("testkit", "outputs"))

    def values(rows: slice) -> Tensor:
        value: Tensor = trial.call(
            "per_example", outputs[rows], inputs[rows], labels[rows], on="a batch"
        )
        count = len(labels[rows])
        has_size = isinstance(value, torch.Tensor) and value.shape[:1] == (count,)
        trial.require(
            has_size, f"per_example() gave {value!r}, not a tensor with a row for each example"
        )
        return value

    whole = values(slice(None))
    # the engine takes batches of any size, the last one smaller than the others
    parts = torch.cat([values(slice(0, 7)), values(slice(7, None))])
    trial.require(
        torch.allclose(whole.double(), parts.double(), equal_nan=True),
        "per_example() gives an example other values in another batch",
    )
    results = [trial.call("result", whole.cpu(), on="a part of the data") for _ in range(2)]
    is_number = isinstance(results[0], int | float) and isfinite(results[0])
    trial.require(is_number, f"result() gave {results[0]!r}, not a finite number")
    trial.require(results[0] == results[1], "result() gave two results for equal values")


def try_analysis(trial: ComponentTrial) -> None:
    """Require the same finite numbers each time, about levels it was shown, by jobs only."""
    lab, levels = _finished_search(cast(Analysis, trial.component))
    for method in ("levels", "across"):
        results = _results(trial, method, lab, levels)
        trial.require(
            results == _results(trial, method, lab, levels),
            f"{method}() found other things when it was asked again",
        )
        for result in results:
            is_result = isinstance(result, AnalysisResult) and result.level in levels
            trial.require(
                is_result,
                f"{method}() gave {result!r}, not an AnalysisResult of a level that it was shown",
            )
            # several numbers may belong together, such as a point of a scatter plot
            values = result.value if isinstance(result.value, tuple) else (result.value,)
            is_plain = all(isinstance(value, int | float) and isfinite(value) for value in values)
            trial.require(
                is_plain,
                f"{method}(): the value of '{result.figure}' is not made of finite numbers",
            )


def _finished_search(analysis: Analysis) -> tuple[CellLab, list[LevelResult]]:
    """Run a search to its end with fake outcomes, and return its lab and levels.

    The lab computes what the analysis needs of a network where it asks for it.
    """
    lab = make_lab(search=ThreeRounds(), analyses=(analysis,))
    _drain(lab.cell.search.search(lab))

    def load(ticket: Ticket) -> Ticket:
        # a new object for each call, as when the runner reads a ticket from its file
        return replace(ticket)

    levels = []
    for record in lab.records:
        levels.append(
            LevelResult(
                lab.cell.study,
                lab.cell.id,
                lab.cell.axes,
                lab.seed,
                record.level,
                record.variant,
                record.ticket.cut,
                record.trained.outcome,
                partial(load, record.ticket),
            )
        )
    return lab, levels


def _results(
    trial: ComponentTrial, method: str, lab: CellLab, levels: list[LevelResult]
) -> list[AnalysisResult]:
    if method == "across":
        return list(trial.call("across", levels, on="a finished study"))
    search = trial.call("levels", lab, levels, on="a finished search")
    trial.require(
        isinstance(search, Generator),
        "levels() is no generator: where it asks for nothing, it needs a `yield from ()`",
    )
    results = _drain(search, trial)
    trial.require(
        isinstance(results, list),
        f"levels() returned {type(results).__name__}, not a list of findings",
    )
    return list(results)


def _drain(search: Any, trial: ComponentTrial | None = None) -> Any:
    """Answer every request of a generator with fake outcomes, and return what it returns."""
    try:
        requests = next(search)
        while True:
            outcomes = []
            for request in requests:
                if trial is not None:
                    is_job = isinstance(request, JobRequest)
                    trial.require(is_job, "levels() asks for other things than jobs")
                outcomes.append(FakeOutcome(request.job))
            requests = search.send(outcomes)
    except StopIteration as end:
        return end.value
