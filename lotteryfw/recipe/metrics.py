"""Checks of the metrics that a recipe asks for."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.kinds import Metric, Objective
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.resolve import ComponentResolver

METRICS: Keys = ("evaluate", "metrics")
"""The path of the list of metrics."""
_NAME = "[a-z0-9_]+"
_TAKEN = ("loss", "accuracy")


def check_metrics(
    parts: Mapping[str, Any], resolver: ComponentResolver, faults: FaultCollector
) -> None:
    """Report metrics that cannot measure the networks of a cell, and names that clash."""
    data, objective = parts["data"], parts["objective"]
    if data is None or objective is None:
        return
    info = resolver.dataset_info(data)
    # figures become columns of levels.csv, which have one name each
    names: set[str] = set()
    for index, metric in enumerate(parts["metrics"]):
        if metric is None:
            continue
        text = _problem(metric, objective, info, names, resolver)
        if text:
            faults.at(*METRICS, index).add(text)
        else:
            names.add(metric.name())


def _problem(
    metric: Metric,
    objective: Objective,
    info: DatasetInfo | None,
    names: Container[str],
    resolver: ComponentResolver,
) -> str:
    """Return why a metric cannot stand beside this objective and data; "" where it can.

    `names` are those of the metrics before it.
    """
    try:
        name = metric.name()
        reason = metric.why_not(info.classes) if info else None
    except Exception as error:
        # A plugin's own methods may raise anything.
        return resolver.broke(metric, "`name` or `why_not`", error)
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        return f"its figure is called '{name}': a name has lower-case letters, digits and _"
    if name in _TAKEN or name.startswith("train_"):
        return f"its figure is called '{name}', which is the name of the objective's own"
    if name in names:
        return f"the figure '{name}' is listed twice"
    if metric.needs_classes and not objective.labels_are_classes:
        return (
            f"the metric '{metric.use}' reads labels as classes, and the objective "
            f"'{objective.use}' does not"
        )
    return f"the metric '{metric.use}' says nothing here: {reason}" if reason else ""
