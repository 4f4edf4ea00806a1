"""A run folder without training: accuracies and steps from formulas, in the shape that the runner writes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import tomli_w

from lotteryfw.store import LevelRow, RunFolder

SIZE = 266_200


def entry_of(label: str) -> Any:
    """The entry that a label of the form `name(option=value, …)` stands for; else the label."""
    name, bracket, inner = label.removesuffix(")").partition("(")
    if not bracket:
        return label
    options = dict(option.split("=", 1) for option in inner.split(", "))
    return {"use": name, **{key: _number(value) for key, value in options.items()}}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def entries_of(axes: Mapping[str, str]) -> dict[str, Any]:
    """The entries of these labels; of a component without options its name."""
    entries = {}
    for axis, label in axes.items():
        entry = entry_of(label)
        if axis in ("search", "criterion", "mask1") and isinstance(entry, str):
            entry = {"use": entry}
        entries[axis] = entry
    return entries


def row(
    axes: Mapping[str, str],
    accuracy: float | None,
    *,
    study: str = "criteria",
    variant: str = "ticket",
    seed: int = 0,
    level: int = 0,
    density: float = 1.0,
    steps: int = 1000,
    stop: int = 500,
    learned: bool = False,
) -> LevelRow:
    """One row; without an accuracy, of a training that diverged."""
    loss = None if accuracy is None else 1 - accuracy
    cell = "/".join([study, *(f"{axis}={label}" for axis, label in axes.items()), f"seed={seed}"])
    kept = round(density * SIZE)
    return LevelRow(
        study=study, cell=cell, variant=variant, seed=seed, level=level, status="diverged" if accuracy is None else "done",
        density=density, requested_density=density, weights_kept=kept, weights_total=SIZE,
        steps=0 if accuracy is None else steps, early_stop_step=0 if accuracy is None else stop,
        validation_loss=loss, validation_accuracy=accuracy, test_loss=loss, test_accuracy=accuracy,
        early_validation_loss=loss, early_validation_accuracy=accuracy, early_test_loss=loss,
        early_test_accuracy=accuracy, layer_densities=f"fc1.weight={density:.6g}",
        key=f"dense{seed}" if level == 0 else f"{cell}/{variant}/{level}", axes=dict(axes),
        axis_values=entries_of(axes), learned=learned,
    )  # fmt: skip


def curves(
    study: str,
    combinations: Sequence[Mapping[str, str]],
    *,
    variants: Sequence[str] = ("ticket",),
    seeds: Sequence[int] = (0, 1, 2),
    levels: int = 24,
    rate: float = 0.2,
    steps: int = 1000,
) -> list[LevelRow]:
    """Rows of a plausible study: each combination falls off at its own density, each control before its ticket."""
    rows = []
    for place, axes in enumerate(combinations):
        for seed in seeds:
            noise = random.Random(f"{study} {place} {seed}")
            dense = 0.976 + 0.001 * random.Random(seed).random()
            for level in range(levels + 1):
                for late, variant in enumerate(variants):
                    if variant != "ticket" and level == 0:
                        continue  # the dense network has no controls
                    density = (1 - rate) ** level
                    falls = 0.004 * 2.2 ** (place + 1.5 * late)
                    gain = 0.006 * (1 - density) * max(0.0, 1 - place / 5 - late)
                    loss = 0.87 / (1 + (density / falls) ** 1.6) * (0.2 + 0.8 * min(1, place / 8))
                    wobble = noise.gauss(0, 0.0015 + 0.02 * loss)
                    accuracy = (
                        dense
                        if level == 0
                        else min(0.9999, max(0.098, dense + gain - loss + wobble))
                    )
                    stop = steps * (0.35 + 0.1 * place / 4 + 0.04 * late * level + 0.2 * loss)
                    stop = (
                        steps * (0.45 + 0.02 * random.Random(seed).random())
                        if level == 0
                        else stop * noise.uniform(0.9, 1.1)
                    )
                    rows.append(
                        row(axes, accuracy, study=study, variant=variant, seed=seed, level=level, density=density,
                            steps=steps, stop=min(steps, round(stop)))
                    )  # fmt: skip
    return rows


def finding(
    row: LevelRow,
    metric: str,
    value: float | Sequence[float],
    *,
    layer: str = "",
    against: str = "",
    unit: str = "share",
    role: str = "",
) -> dict[str, object]:
    """A line of analyses.jsonl: what was found of a row of levels.csv."""
    analysis, _, figure = metric.partition(".")
    return {
        "study": row.study, "cell": row.cell, "axes": row.axes, "seed": row.seed, "variant": row.variant, "level": row.level,
        "density": row.density, "analysis": analysis, "figure": figure, "layer": layer, "against": against,
        "unit": unit, "value": value if isinstance(value, float) else list(value),
    } | ({"role": role} if role else {})  # fmt: skip


def fake_run(
    path: Path,
    rows: Sequence[LevelRow],
    claims: Sequence[Mapping[str, object]] = (),
    *,
    length: str = "1000it",
    unfinished: Sequence[str] = (),
    targets: Sequence[Mapping[str, object]] = (),
) -> RunFolder:
    """A run folder with these rows. `unfinished` names cells that did not run to their end, with or without rows."""
    studies = [
        {"name": name, "train": {"length": length}, "target": list(targets)}
        for name in dict.fromkeys(each.study for each in rows)
    ]
    resolved = {"name": "fake", "study": studies, "claim": [dict(claim) for claim in claims]}
    rmtree(path, ignore_errors=True)  # a test may make several in one place, one after the other
    folder = RunFolder.create(path, "", tomli_w.dumps(resolved))
    folder.write_levels(rows)
    cells = dict.fromkeys((each.cell for each in rows), "done")
    cells |= {each.cell: "diverged" for each in rows if each.status == "diverged"}
    cells |= dict.fromkeys(unfinished, "running")
    folder.write_manifest({"name": "fake", "title": "A made-up study", "cells": cells})
    return folder


A, B = {"criterion": "a"}, {"criterion": "b"}
CLAIM = {"text": "a beats b", "source": "a paper", "study": "criteria", "higher": A, "lower": B}
EVIL = "<script>document.title='broken in'</script>"


def measured(
    rows: Sequence[LevelRow], steps: Sequence[int] = (0, 100, 200)
) -> list[dict[str, Any]]:
    """Return the lines of curves.jsonl for these rows: accuracy rises to that of the row."""
    lines = []
    for level_row in rows:
        accuracy = level_row.validation_accuracy
        if accuracy is not None:
            lines.append(
                {
                    "cell": level_row.cell,
                    "variant": level_row.variant,
                    "level": level_row.level,
                    "step": list(steps),
                    "train_loss": [None, *[0.5] * (len(steps) - 1)],
                    "validation_loss": [2.0 / (1 + step) for step in steps],
                    "validation_accuracy": [
                        accuracy * (step + 1) / (steps[-1] + 1) for step in steps
                    ],
                }
            )
    return lines
