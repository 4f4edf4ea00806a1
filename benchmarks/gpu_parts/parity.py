"""How far results on the GPU are from the CPU's, and whether the GPU repeats its own to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lotteryfw.engine.kernels.dispatch import make_kernel

from .report import Report
from .studies import base, go, tickets
from .trainings import digit_data, image_data, prepare


def run(report: Report) -> None:
    """Chains of iterative magnitude pruning, then single trainings step by step."""
    train = {
        "length": "6it" if report.tiny else "1000it",
        "batch": 60,
        "optimizer": {"use": "adam", "lr": 1.2e-3},
    }
    model = {"use": "mlp", "hidden": [12, 8]} if report.tiny else "lenet_300_100"
    table = base(report, model=model, search={"use": "imp", "levels": 3}, train=train, seeds=[0, 1])
    with report.attempt("LeNet, three levels"):
        on_cpu = go(report, table, "parity-cpu", "cpu")
        on_device = go(report, table, "parity-device", report.device)
        again = go(report, table, "parity-again", report.device)
        _compare(report, "CPU and device", on_cpu, on_device)
        _compare(report, "device twice", on_device, again)

    width = {"width": 0.1} if report.tiny else {}
    networks: list[tuple[str, Any, Any, list[str]]] = [
        ("LeNet", "lenet_300_100", digit_data(report), []),
        ("ResNet-20", {"use": "resnet20"} | width, image_data(report, 16), ["crop", "flip"]),
    ]
    for name, model, data, augment in networks:
        with report.attempt(f"{name} step by step"):
            table = {
                "data": data,
                "model": model,
                "train": {**train, "batch": 32, "augment": augment},
            }
            _steps(report, name, table)


def _compare(report: Report, label: str, one: Any, other: Any) -> None:
    rows = zip(one.levels, other.levels, strict=True)
    accuracy = [(a.test_accuracy, b.test_accuracy) for a, b in rows if a.test_accuracy is not None]
    pairs = ", ".join(f"{a:.3f}/{b:.3f}" for a, b in accuracy)
    furthest = max((abs(a - b) for a, b in accuracy), default=0.0)
    report.add(f"{label}: largest accuracy difference", furthest, "", pairs)

    equal = total = 0
    largest = 0.0
    ours, theirs = tickets(one), tickets(other)
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"different tickets: {sorted(ours)} and {sorted(theirs)}")
    for name, ticket in ours.items():
        for layer, mask in ticket.mask.items():
            equal += int((mask == theirs[name].mask[layer]).sum())
            total += mask.numel()
        for layer, value in ticket.values.items():
            largest = max(largest, float((value - theirs[name].values[layer]).abs().max()))
    report.add(f"{label}: equal mask bits", equal / total, "", f"{total - equal} of {total} differ")
    report.add(f"{label}: largest difference of ticket values", largest)


def _steps(report: Report, name: str, table: dict[str, Any]) -> None:
    kernels = []
    for device in ("cpu", report.device):
        job, engine_context = prepare(replace(report, device=device), table)
        kernels.append(make_kernel([job], engine_context))
    torch.manual_seed(0)
    last = 3 if report.tiny else 30
    for step in range(last):
        losses = [float(kernel.update(step, 1.0)) for kernel in kernels]
        if step in (0, 2, 9, last - 1):
            values = [kernel.members[0].state().values for kernel in kernels]
            apart = [
                (values[0][each] - values[1][each].cpu()).abs().max().item() for each in values[0]
            ]
            note = f"losses {losses[0]:.6g} and {losses[1]:.6g}"
            report.add(f"{name}: largest difference after step {step + 1}", max(apart), "", note)
