"""Convolutional networks: the engine's step as it is, and bare loops of the same work that tell what it could be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from lotteryfw.engine.augmenter import Augmenter

from .graphs import captured
from .report import Report
from .trainings import SGD, image_data, prepare, training_step

BATCH = 128
ENSEMBLE = 8


def run(report: Report) -> None:
    """Conv-4, ResNet-20, and ResNet-18 64 channels wide."""
    width = {"width": 0.1} if report.tiny else {}
    for model in ("conv4", "resnet20") if report.tiny else ("conv4", "resnet20", "resnet18"):
        with report.attempt(f"{model}: engine"):
            _engine(report, {"use": model} | width)
        with report.attempt(f"{model}: bare loops"):
            _bare(report, {"use": model} | width)
    with report.attempt("ensemble"):
        _ensemble(report, {"use": "resnet20"} | width)


def _table(report: Report, model: dict[str, Any], augment: list[str]) -> dict[str, Any]:
    batch = 16 if report.tiny else BATCH
    train = {"length": "400it", "batch": batch, "optimizer": SGD, "augment": augment}
    return {"data": image_data(report), "model": model, "train": train}


def _engine(report: Report, model: dict[str, Any]) -> None:
    """The reference kernel, dense and under a mask, with and without augmentation."""
    name = model["use"]
    for label, augment, density in (
        ("dense", [], 1.0), ("20 % mask", [], 0.2), ("dense, crop + flip", ["crop", "flip"], 1.0)
    ):  # fmt: skip
        job, engine_context = prepare(report, _table(report, model, augment), density=density)
        step = training_step(job, engine_context)
        report.add(
            f"{name}: reference kernel, {label}",
            report.seconds_per_call(step, 1.5) * 1e3,
            "ms/step",
        )
        if label == "dense":
            with settings(tf32=True, fastest=False):
                seconds = report.seconds_per_call(training_step(job, engine_context), 1.5)
            report.add(f"{name}: reference kernel, dense, TF32", seconds * 1e3, "ms/step")

    inputs = engine_context.dataset(job.data).raw("train")[0][: job.batch]
    augment = Augmenter(
        [engine_context.component(spec) for spec in job.augment], 0, engine_context.device
    )
    steps = iter(range(10**9))
    seconds = report.seconds_per_call(lambda: augment(inputs, next(steps)))
    report.add(f"{name}: crop + flip alone", seconds * 1e3, "ms/step")


class Loop:
    """A training loop by hand: batches gathered on the device, forward, backward, SGD."""

    def __init__(self, report: Report, model: dict[str, Any], channels_last: bool, bf16: bool):
        job, engine_context = prepare(report, _table(report, model, []))
        feed = engine_context.dataset(job.data)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.inputs, self.labels = feed.raw("train")
        self.inputs = self.inputs.contiguous(memory_format=layout)
        self.rows = torch.randperm(len(self.labels), device=report.device)[: job.batch]
        self.module = (
            engine_context.network(job.model, feed, job.objective).to(memory_format=layout).train()
        )
        parameters = list(self.module.parameters())
        self.optimizer = torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=1e-4, foreach=True)
        self.cast: Callable[[], Any] = nullcontext
        if bf16:
            self.cast = lambda: torch.autocast(report.device, torch.bfloat16, cache_enabled=False)

    def step(self) -> torch.Tensor:
        """One update; the loss."""
        inputs, labels = self.inputs[self.rows], self.labels[self.rows]
        with self.cast():
            loss = cross_entropy(self.module(inputs), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def operations(self) -> int:
        """Floating-point operations of a step."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.step()
        return counter.get_total_flops()


VARIANTS = (
    # label, channels last, bf16, TF32, cuDNN chooses the fastest, CUDA graph
    ("float32", False, False, False, False, False),
    ("float32, fastest cuDNN", False, False, False, True, False),
    ("TF32", False, False, True, True, False),
    ("bf16 channels last", True, True, False, True, False),
    ("bf16 channels last, repeatable cuDNN", True, True, False, False, False),
    ("float32, graph", False, False, False, True, True),
    ("TF32, graph", False, False, True, True, True),
    ("bf16 channels last, graph", True, True, False, True, True),
    ("bf16 channels last, repeatable, graph", True, True, False, False, True),
)


def _bare(report: Report, model: dict[str, Any]) -> None:
    name = model["use"]
    operations = Loop(report, model, channels_last=False, bf16=False).operations()
    for label, rate in (("float32", "fp32"), ("bf16", "bf16")):
        least = operations / report.rate(f"product {rate}")
        report.add(
            f"{name}: least, {label} products",
            least * 1e3,
            "ms/step",
            f"{operations / 1e9:.3g} GFLOP",
        )

    for label, channels_last, bf16, tf32, fastest, graph in VARIANTS:
        if graph and report.device != "cuda":
            continue
        with report.attempt(f"{name}: bare {label}", 60), settings(tf32, fastest):
            step: Callable[[], Any] = Loop(report, model, channels_last, bf16).step
            if graph:
                step = captured(step)
            report.add(f"{name}: bare {label}", report.seconds_per_call(step, 1.5) * 1e3, "ms/step")


def _ensemble(report: Report, model: dict[str, Any]) -> None:
    """Several networks as one, their weights stacked: an experiment with vmap."""
    for label, bf16, tf32, graph in (
        ("float32", False, False, False), ("TF32", False, True, False), ("bf16", True, False, False),
        ("TF32, graph", False, True, True), ("bf16, graph", True, False, True),
    ):  # fmt: skip
        if graph and report.device != "cuda":
            continue
        what = f"{model['use']}: {ENSEMBLE} by vmap, {label}"
        with report.attempt(what, 60), settings(tf32, True):
            step: Callable[[], Any] = _ensemble_step(report, model, bf16)
            if graph:
                step = captured(step)
            seconds = report.seconds_per_call(step, 1.5)
            report.add(
                what, seconds * 1e3, "ms/step", f"{seconds * 1e3 / ENSEMBLE:.3g} ms a member"
            )


def _ensemble_step(report: Report, model: dict[str, Any], bf16: bool) -> Callable[[], Any]:
    job, engine_context = prepare(report, _table(report, model, []))
    feed = engine_context.dataset(job.data)
    modules: list[nn.Module] = []
    for _ in range(ENSEMBLE):
        modules.append(engine_context.network(job.model, feed, job.objective).train())
    parameters, buffers = stack_module_state(modules)
    optimizer = torch.optim.SGD(
        list(parameters.values()), 0.01, 0.9, weight_decay=1e-4, foreach=True
    )
    everything, labels = feed.raw("train")
    rows = torch.randperm(len(labels), device=report.device)[: job.batch]

    def outputs(own: Any, own_buffers: Any, inputs: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = functional_call(modules[0], (own, own_buffers), (inputs,))
        return made

    together = vmap(outputs, in_dims=(0, 0, None), randomness="different")

    def step() -> torch.Tensor:
        cast = (
            torch.autocast(report.device, torch.bfloat16, cache_enabled=False)
            if bf16
            else nullcontext()
        )
        with cast:
            logits = together(parameters, buffers, everything[rows])
            targets = labels[rows].repeat(ENSEMBLE)
            loss = cross_entropy(logits.flatten(0, 1), targets) * ENSEMBLE
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@contextmanager
def settings(tf32: bool, fastest: bool) -> Iterator[None]:
    """Allow TF32 products, and let cuDNN try which of its algorithms is fastest, repeatable or not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = (
        tf32,
        tf32,
        fastest,
        not fastest,
    )
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
