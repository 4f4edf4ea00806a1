"""Whether eight ResNet-20 as one network, their weights stacked, are faster than one after another: bare loops."""

from __future__ import annotations

from .convs import ENSEMBLE, Loop, _ensemble_step, settings
from .graphs import captured
from .report import Report


def run(report: Report) -> None:
    """One network and eight by vmap, bf16 and float32, as CUDA graphs."""
    model = {"use": "resnet20"} | ({"width": 0.1} if report.tiny else {})
    for label, bf16 in (("float32", False), ("bf16", True)):
        with report.attempt(label, 20), settings(tf32=False, fastest=False):
            steps = {
                1: Loop(report, model, channels_last=bf16, bf16=bf16).step,
                ENSEMBLE: _ensemble_step(report, model, bf16),
            }
            seconds = {}
            for members, step in steps.items():
                work = captured(step) if report.device == "cuda" else step
                seconds[members] = report.seconds_per_call(work, 0.8)
                report.add(f"ResNet-20, {label}: {members}", seconds[members] * 1e3, "ms/step")
            gain = ENSEMBLE * seconds[1] / seconds[ENSEMBLE]
            report.add(
                f"ResNet-20, {label}: throughput of {ENSEMBLE}", gain, "×", "times that of one"
            )
