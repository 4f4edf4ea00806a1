"""Streamed data: batches by seed and epoch alone, and trainings as from the same examples in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import (
    REGISTRY,
    cell,
    dense_job,
    engine_context,
    gradient_job,
    kernel,
    lab,
    make,
)
from torch import Tensor

from lotteryfw.api.data import Box, Dataset, DatasetInfo, StreamedDataset, StreamedSubset, Subset
from lotteryfw.api.errors import ContractError, DataError, UsageError
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine import EngineContext, KernelDispatcher, device_dataset, streamed_part
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.evaluation_job import evaluate_network
from lotteryfw.engine.probe_job import run_probe
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.engine.training_batches import TrainingBatches
from lotteryfw.search.jobs import Evaluate, Train

SYNTHETIC = {"use": "synthetic", "examples": 60, "classes": 3, "shape": [3, 8, 8]}
RESNET = {"use": "resnet20", "width": 0.125}
FLIP, CROP = make("augmentation", "flip"), make("augmentation", "random_resized_crop")


@pytest.fixture
def data(picture_folder: Path) -> dict[str, Any]:
    """The generated folder, streamed; 1,696 examples are left to train on."""
    return {
        "use": "image_folder", "path": str(picture_folder), "size": 8, "streamed": True,
        "damaged": "skip", "validation": 100, "normalise": "imagenet",
    }  # fmt: skip


def job_of(data: dict[str, Any], steps: int = 6, **changes: Any) -> Train:
    settings: dict[str, Any] = {
        "model": RESNET,
        "batch": 32,
        "evaluate_every": 100,
        "optimizer": {"use": "sgd", "lr": 0.05, "momentum": 0.9},
    }
    return dense_job(cell(steps, data=data, **settings | changes))


def held(dataset: StreamedDataset) -> Dataset:
    """The same examples as tensors, read one by one in this thread."""
    subsets = []
    for part in (dataset.train, dataset.validation, dataset.test):
        inputs = [part.inputs.read(index) for index in range(len(part.labels))]
        subsets.append(Subset(torch.stack(inputs), part.labels))
    train, validation, test = subsets
    return Dataset(train, validation, test, dataset.mean, dataset.std)


def in_memory(context: EngineContext, job: Train) -> EngineContext:
    """An engine in which the job finds its examples in memory."""
    dataset = context.component(job.data).load(Path("unused"))
    info = replace(context.dataset_of(job).info, streamed=False)
    other = engine_context()
    whole = DeviceDataset(held(dataset), info, "cpu")
    other.dataset_of = lambda job: whole  # type: ignore[method-assign]
    return other


def trained(job: Train, context: EngineContext, until: int | None = None) -> Training:
    group = TrainingGroup([job], context)
    advance(group, job.start, until or job.start + job.steps)
    return group.trainings[0]


def advance(group: TrainingGroup, start: int, until: int) -> None:
    (training,) = group.trainings
    training.count(0)
    training.count(group.update(start, until, lambda step: False))


def bits(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in tensors.items()}


def end(training: Training) -> dict[str, bytes]:
    return bits(training.member.state().values) | bits(training.member.optimizer_state())


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let a number of threads read."""
    pools = []

    def use(count: int) -> None:
        pools.append(ThreadPoolExecutor(count))
        monkeypatch.setattr(streamed_part, "_readers", lambda: pools[-1])

    yield use
    for pool in pools:
        pool.shutdown()


def test_batches_are_those_of_seed_and_epoch(
    data: dict[str, Any], threads: Callable[[int], None]
) -> None:
    """Against a plain statement: the epoch's permutation, each example cropped by a stream of its own."""
    job, context = job_of(data, augment=(FLIP, CROP)), engine_context()
    dataset = context.dataset_of(job)
    part = context.component(job.data).load(Path("unused")).train
    step = job.steps_per_epoch + 2
    order = torch.randperm(len(part.labels), generator=stream(job.order_seed, Stream.ORDER, 1))
    indices = order[2 * job.batch : 3 * job.batch]
    images = []
    for index in indices.tolist():
        rng = stream(job.augment_seed, Stream.AUGMENTATION, 1, 1, index)
        images.append(part.inputs.read(index, lambda height, width: CROP.box(height, width, rng)))  # noqa: B023
    inputs = torch.stack(images).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = (inputs - mean[:, None, None]) / std[:, None, None]
    inputs = FLIP.apply(inputs, stream(job.augment_seed, Stream.AUGMENTATION, 0, step))

    # whatever was read before, and by however many threads
    for count, before in ((1, None), (3, 0), (2, step - 1), (2, step + 1)):
        threads(count)
        batches = TrainingBatches(job, context, dataset)
        if before is not None:
            batches(before)
        actual = batches(step, until=step + 1)
        assert actual[0].equal(inputs)
        assert actual[1].equal(part.labels[indices])
        # a mask update asks for the batch of a step once more
        assert batches(step)[0].equal(inputs)
    assert not batches(step - job.steps_per_epoch)[0].equal(inputs)


def test_a_training_that_is_resumed_in_an_epoch_ends_with_the_same_bits(
    data: dict[str, Any], threads: Callable[[int], None]
) -> None:
    job, context = job_of(data, augment=(CROP, FLIP)), engine_context()
    threads(1)
    whole = trained(job, context)
    threads(3)
    tensors, plain = trained(job, context, until=3).checkpoint()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    group = TrainingGroup([job], engine_context())
    group.trainings[0].restore(tensors, plain)
    advance(group, 3, job.steps)
    assert end(group.trainings[0]) == end(whole)
    assert group.trainings[0].curve == whole.curve
    assert group.trainings[0].metrics() == whole.metrics()


def test_training_and_figures_are_those_of_the_same_examples_in_memory(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_dataset, "STREAMED_CHUNK", 64)
    monkeypatch.setattr(device_dataset, "EVALUATION_CHUNK", 64)
    job, context = job_of(data, augment=(FLIP,)), engine_context()
    other = in_memory(context, job)
    streamed, whole = trained(job, context), trained(job, other)
    assert end(streamed) == end(whole)
    assert streamed.metrics() == whole.metrics()

    probe = gradient_job(job)
    assert bits(run_probe(probe, context)) == bits(run_probe(probe, other))


@pytest.mark.parametrize(
    ("name", "model"),
    [("fused", {"use": "mlp", "hidden": [8]}), ("compact", {"use": "conv2", "width": 0.05})],
)
def test_faster_kernels_train_on_streamed_data_as_in_memory(
    data: dict[str, Any], name: str, model: dict[str, Any]
) -> None:
    job = replace(job_of(data, steps=3, model=model), kernel=kernel(name))
    job = replace(job, mask={layer: mask.clone() for layer, mask in job.mask.items()})
    for mask in job.mask.values():
        mask[::2] = False
    job = replace(job, values={**job.values, **{n: job.values[n] * m for n, m in job.mask.items()}})
    context = engine_context()
    assert end(trained(job, context)) == end(trained(job, in_memory(context, job)))


def test_batches_go_to_the_device_and_the_host_does_not_wait(data: dict[str, Any]) -> None:
    """On the pretend accelerator, where a tensor that was left on the CPU meets none of the device."""
    pretend = pytest.importorskip(
        "support.pretend", reason="this torch cannot make a device in Python", exc_type=ImportError
    )
    job, context = job_of(data, augment=(CROP,)), engine_context()
    expected = [TrainingBatches(job, context, context.dataset_of(job))(step) for step in (0, 1)]
    with pretend.Pretend():
        context = EngineContext(REGISTRY, Path("unused"), pretend.NAME)
        dataset = context.dataset_of(job)
        batches = TrainingBatches(job, context, dataset)
        batches(0)
        pretend.syncs.clear()
        inputs, labels = batches(1)
        # what is sent from pinned memory: inputs and labels, and nothing is waited for
        assert sum(pretend.syncs.values()) == 2, pretend.syncs
        assert (inputs.device.type, labels.device.type) == (pretend.NAME, pretend.NAME)
        assert inputs.cpu().equal(expected[1][0])
        assert labels.cpu().equal(expected[1][1])
        chosen = torch.tensor([5, 3])
        inputs, labels = dataset.examples_at("test", chosen)
        everything = [pair[1] for pair in dataset.batches("test")]
        assert torch.cat(everything)[chosen.to(pretend.NAME)].equal(labels)


def test_masks_are_learned_on_streamed_data(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_dataset, "STREAMED_CHUNK", 1000)
    of = cell(
        3, data=data, model=RESNET, batch=32, evaluate_every=100, augment=(FLIP,), mask1="constant",
        parametrization=make("parametrization", "top_k"),
    )  # fmt: skip
    desk = lab(of)
    job = replace(desk.job(desk.learn_mask(0.5)), kernel=kernel("mask_training"))
    assert isinstance(job, Train)
    context = engine_context()
    streamed, whole = trained(job, context), trained(job, in_memory(context, job))
    assert end(streamed) == end(whole)
    assert bits(streamed.member.state().scores) == bits(whole.member.state().scores)
    assert streamed.metrics() == whole.metrics()


def test_batch_norm_is_recalibrated_on_streamed_batches(data: dict[str, Any]) -> None:
    job, context = job_of(data, augment=(FLIP,)), engine_context()
    evaluation = Evaluate(
        model=job.model, data=job.data, fingerprint=job.fingerprint, objective=job.objective,
        part="validation", metrics=(), device="cpu", values=job.values, mask=job.mask,
        recalibrate=3, batch=job.batch, steps_per_epoch=job.steps_per_epoch,
        order_seed=job.order_seed, augment=job.augment, augment_seed=job.augment_seed,
    )  # fmt: skip
    figures = evaluate_network(evaluation, context)
    expected = evaluate_network(evaluation, in_memory(context, job))
    assert figures.accuracy == expected.accuracy
    assert figures.loss == pytest.approx(expected.loss, rel=1e-6)


def test_kernels_that_gather_batches_from_memory_are_not_chosen(data: dict[str, Any]) -> None:
    job = job_of(data, model={"use": "mlp", "hidden": [8]})
    choose = KernelDispatcher(engine_context())
    assert choose(job, "auto").name in ("fused", "reference")
    for name in ("lockstep", "sparse"):
        with pytest.raises(
            UsageError, match=f"kernel '{name}' cannot train this: it takes examples"
        ):
            choose(job, name)


def test_the_facts_of_the_data_are_looked_up_once_for_all_jobs(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(data, model={"use": "mlp", "hidden": [8]})
    context = engine_context()
    choose = KernelDispatcher(context)
    source, calls = context.component(job.data), []
    facts = type(source).facts
    monkeypatch.setattr(type(source), "facts", lambda *names: calls.append(1) or facts(*names))
    for seed in range(3):
        choose(replace(job, order_seed=seed), "auto")
    assert len(calls) == 1


# What a reader may do wrong


class Reader:
    """Returns the index as an image of one pixel, and does something else for the last one."""

    def __init__(self, last: Any):
        self._last = last

    def read(self, index: int, draw_box: Any = None) -> Any:
        if index == 9:
            return self._last() if callable(self._last) else self._last
        return torch.full((1, 1, 1), index, dtype=torch.uint8)


def dataset_of(last: Any) -> DeviceDataset:
    part = StreamedSubset(Reader(last), torch.arange(10))  # type: ignore[arg-type]
    info = DatasetInfo((1, 1, 1), 10, 10, 10, 10, streamed=True)
    return DeviceDataset(StreamedDataset(part, part, part), info, "cpu")


def gone() -> None:
    raise DataError("pictures: 9.png is gone")


@pytest.mark.parametrize(
    ("last", "error", "message"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.uint8), ContractError, r"read\(9\) returned \[1, 2, 2\]; its facts"),
        (torch.zeros(1, 1, 1), ContractError, r"read\(9\) returned torch.float32, and read\(0\) torch.uint8"),
        (None, ContractError, r"read\(9\) returned NoneType"),
        (gone, DataError, "9.png is gone"),
    ],
)  # fmt: skip
def test_what_a_reader_returns_is_checked_as_it_is_read(
    last: Any, error: type, message: str
) -> None:
    dataset = dataset_of(last)
    assert dataset.examples_at("test", torch.tensor([8, 2]))[0].flatten().tolist() == [
        pytest.approx(8 / 255), pytest.approx(2 / 255),
    ]  # fmt: skip
    with pytest.raises(error, match=message):
        list(dataset.batches("test", 4))


def test_batches_that_nobody_needs_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is left early, and a training that ends, do not keep threads reading."""
    begun: list[streamed_part.BatchInReading] = []

    class Noted(streamed_part.BatchInReading):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            begun.append(self)

    monkeypatch.setattr(streamed_part, "BatchInReading", Noted)
    dataset = dataset_of(torch.zeros(1, 1, 1, dtype=torch.uint8))
    chunks = iter(dataset.batches("test", 4))
    next(chunks)
    del chunks
    assert [batch.is_cancelled for batch in begun] == [False, True]

    begun.clear()
    job = replace(job_of(SYNTHETIC), batch=2, steps_per_epoch=5)
    batches = TrainingBatches(job, engine_context(), dataset)
    batches(0)
    assert len(begun) == 3
    batches(4, until=5)
    assert [batch.is_cancelled for batch in begun] == [True, True, True, False]
    del batches
    assert begun[-1].is_cancelled


def test_boxes_are_drawn_for_images_alone() -> None:
    assert isinstance(CROP.box(10, 20, stream(0)), Box)
    assert FLIP.box(10, 20, stream(0)) is None
