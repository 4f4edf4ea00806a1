"""`engine.compile`: does the compiler take the networks, are the results right, and what does it gain."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.search.jobs import Train

from .convs import _table
from .report import Report
from .trainings import prepare, training_step

SECONDS = 0.6
"""How long each variant is timed."""
STEPS = 8
"""Updates whose losses are compared with those of the plain pass."""
NEAR = 1e-5
"""How far the first loss may be from the plain pass's in float32, as a share of it. Rounding grows from step to step."""


def run(report: Report) -> None:
    """Each network, in the precisions that a study would train it in, with recorded updates."""
    width = {"width": 0.1} if report.tiny else {}
    cases = [("resnet20", "bf16"), ("resnet20", "float32"), ("conv4", "bf16")]
    for name, precision in cases[1:2] if report.tiny else cases:
        with report.attempt(f"{name}, {precision}", 75):
            _measure(report, f"{name}, {precision}", {"use": name} | width, precision)


def _measure(report: Report, label: str, model: dict[str, Any], precision: str) -> None:
    job, engine_context = prepare(report, _table(report, model, []))
    memory_format = "contiguous" if precision == "float32" else "channels_last"
    plain = replace(job, precision=precision, memory_format=memory_format)
    compiled = replace(plain, compiled=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = time.perf_counter()
        losses = _losses(compiled, engine_context)
        seconds = time.perf_counter() - started
    texts = [str(each.message) for each in caught if issubclass(each.category, RuntimeWarning)]
    report.add(f"{label}: compiled", "FAILED" if texts else "pass", note=" | ".join(texts)[:300])
    report.add(f"{label}: first {STEPS} updates", seconds, "s", "the compiler's time included")

    wanted = _losses(plain, engine_context)
    apart = [abs(one - other) / other for one, other in zip(losses, wanted, strict=True)]
    note = f"as a share of it; {max(apart):.3g} at most in {STEPS} updates"
    report.add(f"{label}: first loss apart", apart[0], "", note)
    if precision == "float32":
        report.add(f"{label}: first loss is near", "pass" if apart[0] < NEAR else "FAILED")

    times = {}
    for way, variant in {"plain": plain, "compiled": compiled}.items():
        step = training_step(variant, engine_context)
        for _ in range(WARM_UP + 1):
            step()
        times[way] = report.seconds_per_call(step, SECONDS)
        report.add(f"{label}: recorded, {way}", times[way] * 1e3, "ms/step")
    report.add(f"{label}: gain", times["plain"] / times["compiled"], "×")


def _losses(job: Train, engine_context: Any) -> list[float]:
    """The losses of a training's first updates."""
    kernel = Reference(job, engine_context)
    return [float(kernel.update(step, 1.0)) for step in range(STEPS)]
