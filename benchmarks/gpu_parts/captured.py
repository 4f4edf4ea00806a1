"""Recorded updates: the bits of plain ones, what happens where recording fails, memory, and the speed of conv nets."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn.functional import dropout

from lotteryfw.engine.kernels.captured import RECORDERS, WARM_UP
from lotteryfw.engine.kernels.lockstep import KERNEL, Group
from lotteryfw.engine.kernels.mask_training import MaskTraining
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import KernelSpec, Train

from .convs import BATCH, Loop, settings
from .edge_popup import SIZES, selection
from .graphs import StepByStep, recorder
from .graphs import captured as as_graph
from .report import Report
from .trainings import ADAM, SGD, digit_data, image_data, prepare, training_step

PLAIN_SGD = {"use": "sgd", "lr": 0.1}
LEARNED: dict[str, dict[str, Any]] = {
    "Conv-4, edge-popup": {
        "search": {"use": "edge_popup", "density": 0.5},
        "parametrization": "top_k",
    },
    "Conv-4, supermask": {"search": {"use": "supermask"}, "parametrization": "bernoulli"},
}
STEPS = 30
"""Updates that are compared: three to warm up, the rest replayed."""


def run(report: Report) -> None:
    """Results first, then speed. The CPU, which records nothing, makes the updates that would be recorded."""
    with recorder(report, RECORDERS.get(report.device) or StepByStep()):
        _lockstep_parity(report)
        _reference_parity(report)
        with report.attempt("where recording fails"):
            _broken_off(report)
        with report.attempt("memory is let go"):
            _memory(report)

    width = {"width": 0.1} if report.tiny else {}
    for model in ("conv4", "resnet20") if report.tiny else ("conv4", "resnet20", "resnet18"):
        with report.attempt(f"{model}: speed"):
            _speed(report, {"use": model} | width)
    with report.attempt("selection"):
        selection(report, 1000 if report.tiny else SIZES[1], seconds=0.1)


def factor(step: int) -> float:
    """A learning rate that changes with every step."""
    return 1.0 - 0.01 * step


def _lockstep_parity(report: Report) -> None:
    """Groups with each optimizer, with shared and with own orders of the examples, under masks."""
    momentum = {"use": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    for name, optimizer in {"sgd": PLAIN_SGD, "momentum": momentum, "adam": ADAM}.items():
        train = {"length": "1000it", "batch": 60, "optimizer": optimizer}
        table = {"data": digit_data(report), "model": "lenet_300_100", "train": train}
        with report.attempt(f"lockstep, {name}"):
            job, engine_context = prepare(report, table, density=0.2)
            job = replace(job, kernel=KernelSpec(KERNEL.name, KERNEL.revision))
            for label in ("shared order", "own orders"):
                jobs = [job] * 3
                if label == "own orders":
                    jobs = [replace(job, order_seed=seed) for seed in range(3)]
                compare(
                    report,
                    f"lockstep, {name}, {label}",
                    lambda jobs=jobs, engine_context=engine_context: Group(jobs, engine_context),
                )


def _reference_parity(report: Report) -> None:
    """Networks of every kind, masked, with batch norm, augmented, and with random numbers from the device."""
    width = {"width": 0.1} if report.tiny else {}
    conv4, resnet = {"use": "conv4"} | width, {"use": "resnet20"} | width
    networks: dict[str, tuple[Any, Any, list[str], float]] = {
        "LeNet, adam": ("lenet_300_100", ADAM, [], 0.2),
        "Conv-4": (conv4, SGD, [], 0.2),
        "ResNet-20": (resnet, SGD, [], 0.2),
        "ResNet-20, crop + flip": (resnet, SGD, ["crop", "flip"], 1.0),
    }
    for name, (model, optimizer, augment, density) in networks.items():
        with report.attempt(name):
            train = {
                "length": "400it",
                "batch": 16 if report.tiny else 64,
                "optimizer": optimizer,
                "augment": augment,
            }
            data = image_data(report) if isinstance(model, dict) else digit_data(report)
            job, engine_context = prepare(
                report, {"data": data, "model": model, "train": train}, density=density
            )
            compare(
                report,
                name,
                lambda job=job, engine_context=engine_context: Reference(job, engine_context),
            )

    for name, learned in LEARNED.items():
        with report.attempt(name):
            train = {"length": "400it", "batch": 16 if report.tiny else 64, "optimizer": SGD}
            table = {
                "data": image_data(report),
                "model": conv4 | {"bias": False},
                "train": train,
                "initialiser": "signed_constant",
            }
            job, engine_context = prepare(report, table | learned)
            compare(
                report,
                name,
                lambda job=job, engine_context=engine_context: MaskTraining(job, engine_context),
            )

    with report.attempt("dropout"):
        job, engine_context = prepare(report, _digits(report))

        def make() -> Reference:
            kernel = Reference(job, engine_context)
            kernel.network.module.register_forward_hook(lambda *call: dropout(call[-1], 0.5))
            return kernel

        compare(report, "dropout", make)


def _digits(report: Report) -> dict[str, Any]:
    train = {"length": "400it", "batch": 16 if report.tiny else 60, "optimizer": ADAM}
    return {"data": digit_data(report), "model": "lenet_300_100", "train": train}


def compare(report: Report, name: str, make: Callable[[], Any]) -> None:
    """Train recorded, with the same updates step by step, and on the plain path, from one state and one seed."""
    recorded = _trained(report, make)
    with recorder(report, StepByStep()):
        step_by_step = _trained(report, make)
    with recorder(report, None):
        plain = _trained(report, make)
    unequal = [
        label for label, value in recorded.items() if not torch.equal(value, step_by_step[label])
    ]
    apart = max(_apart(recorded[label], step_by_step[label]) for label in recorded)
    note = (
        f"{len(unequal)} of {len(recorded)} tensors differ, by {apart:.3g} at most"
        if unequal
        else ""
    )
    report.add(f"{name}: recorded, bits", "FAILED" if unequal else "pass", note=note)
    furthest = max(_apart(recorded[label], plain[label]) for label in recorded)
    report.add(
        f"{name}: from the plain path", furthest, "", "largest difference of a weight or loss"
    )


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def _trained(report: Report, make: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """The weights, losses and evaluations of a training."""
    torch.manual_seed(1)
    kernel = make()
    losses, curve = [], []
    for step in range(STEPS):
        losses.append(kernel.update(step, factor(step)).clone())
        if step % 5 == 0:
            curve.append([member.evaluate("validation") for member in kernel.members])
    result = {"losses": torch.stack(losses), "curve": torch.tensor(curve)}
    for number, member in enumerate(kernel.members):
        state = member.state()
        for name, value in {
            **state.values,
            **{f"{n}.s": s for n, s in state.scores.items()},
        }.items():
            result[f"{number}: {name}"] = value.clone()
    report.synchronize()
    return result


def _broken_off(report: Report) -> None:
    """A network that asks the device for a number: it must go on step by step, and harm nothing that comes later."""
    job, engine_context = prepare(report, _digits(report))

    def make() -> Reference:
        kernel = Reference(job, engine_context)

        def ask(module: Any, inputs: Any, outputs: torch.Tensor) -> torch.Tensor:
            scale = 1.0 if outputs.sum().item() == 0.125 else 0.5
            return dropout(outputs, 0.5) * scale

        kernel.network.module.register_forward_hook(ask)
        return kernel

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _trained(report, make)
    texts = [
        str(warning.message) for warning in caught if "cannot be recorded" in str(warning.message)
    ]
    with recorder(report, StepByStep()):
        wanted = _trained(report, make)
    equal = all(torch.equal(value, wanted[name]) for name, value in found.items())
    told = len(texts) == (report.device == "cuda")
    report.add("recording fails: same bits", "pass" if equal else "FAILED")
    report.add(
        "recording fails: one warning", "pass" if told else "FAILED", note=" | ".join(texts)[:300]
    )

    if report.device == "cuda":
        torch.cuda.empty_cache()
        default = torch.cuda.current_stream() == torch.cuda.default_stream()
        report.add("recording fails: default stream again", "pass" if default else "FAILED")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(report, "after a recording that failed", lambda: Reference(job, engine_context))


def _memory(report: Report) -> None:
    """Trainings one after another must not add up."""
    width = {"width": 0.1} if report.tiny else {}
    train = {
        "length": "400it",
        "batch": 16 if report.tiny else BATCH,
        "optimizer": SGD,
        "augment": ["flip"],
    }
    table = {"data": image_data(report), "model": {"use": "resnet20"} | width, "train": train}
    job, engine_context = prepare(report, table)
    used, reserved = [], []
    for _ in range(4):
        kernel = Reference(job, engine_context)
        for step in range(6):
            kernel.update(step, 1.0)
        report.synchronize()
        if report.device == "cuda":
            reserved.append(torch.cuda.memory_reserved() / 2**20)
        del kernel
        if report.device == "cuda":
            used.append(torch.cuda.memory_allocated() / 2**20)
    grows = bool(used) and used[-1] > used[0] + 1
    note = ", ".join(f"{each:.0f}" for each in used) + " MiB after each"
    report.add("four trainings: memory is let go", "FAILED" if grows else "pass", note=note)
    if reserved:
        report.add("ResNet-20: memory while training", max(reserved), "MiB", "recorded, batch 128")


def _evaluation_speed(
    report: Report, name: str, job: Train, engine_context: EngineContext, seconds: float
) -> None:
    """The evaluation of a curve's point, recorded and plain."""
    for label in ("recorded", "plain"):
        with recorder(report, RECORDERS.get(report.device) if label == "recorded" else None):
            network = Reference(job, engine_context).network
            for _ in range(3):
                network.evaluate("validation")
            each = report.seconds_per_call(partial(network.evaluate, "validation"), seconds)
            report.add(f"{name}: evaluation, {label}", each * 1e3, "ms")


def _speed(report: Report, model: dict[str, Any]) -> None:
    """The reference kernel recorded and plain, beside bare loops with the same cuDNN settings."""
    name = model["use"]
    seconds = 0.8

    def table(augment: list[str]) -> dict[str, Any]:
        batch = 16 if report.tiny else BATCH
        train = {"length": "400it", "batch": batch, "optimizer": SGD, "augment": augment}
        return {"data": image_data(report), "model": model, "train": train}

    for label, augment, density in (
        ("dense", [], 1.0), ("20 % mask", [], 0.2), ("crop + flip", ["crop", "flip"], 1.0)
    ):  # fmt: skip
        job, engine_context = prepare(report, table(augment), density=density)
        step = training_step(job, engine_context)
        report.synchronize()
        started = time.perf_counter()
        for _ in range(WARM_UP + 1):
            step()
        report.synchronize()
        until_recorded = time.perf_counter() - started
        each = report.seconds_per_call(step, seconds)
        note = f"the first {WARM_UP + 1} updates took {until_recorded * 1e3:.0f} ms"
        report.add(f"{name}: reference, recorded, {label}", each * 1e3, "ms/step", note)
        if label == "dense":
            with recorder(report, None):
                each = report.seconds_per_call(training_step(job, engine_context), seconds)
            report.add(f"{name}: reference, plain, {label}", each * 1e3, "ms/step")
            _evaluation_speed(report, name, job, engine_context, seconds)

    with settings(tf32=False, fastest=False):
        loop = Loop(report, model, channels_last=False, bf16=False)
        report.add(
            f"{name}: bare float32", report.seconds_per_call(loop.step, seconds) * 1e3, "ms/step"
        )
        if report.device == "cuda":
            each = report.seconds_per_call(as_graph(loop.step), seconds)
            report.add(f"{name}: bare float32, graph", each * 1e3, "ms/step")
