"""What one process needs to run jobs: components built from their specs, data sets in memory, the device."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.api.errors import (
    ContractError,
    DataError,
    LotteryError,
    PluginError,
    StoreError,
    UsageError,
)
from lotteryfw.api.fingerprints import fingerprint_of
from lotteryfw.api.kinds import DataSource, ModelFamily
from lotteryfw.api.rng import seed_of
from lotteryfw.engine.feed import EVALUATION_CHUNK, Feed
from lotteryfw.registry import Registry
from lotteryfw.search.jobs import Job, Spec, digest
from lotteryfw.store import Store, is_denied, tensors

if TYPE_CHECKING:
    import torch


_PARTS = ("train", "validation", "test")


def pick_device(name: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda"; UsageError where it is not to be had."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called '{name}'; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': this torch sees no CUDA device; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def settle_process() -> None:
    """One torch thread (with more, small nets crawl on a machine that others use), repeatable convolutions, float32
    products and convolutions that are not rounded to TF32's 10 bits, and no compiler that nobody asked for."""
    import torch
    from torch.optim import Optimizer

    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for method in (
        Optimizer.add_param_group,
        Optimizer.zero_grad,
        Optimizer.state_dict,
        Optimizer.load_state_dict,
    ):
        # At its first call torch imports its compiler, 1.5 s and 150 MB, only to keep it out of this method, and marks
        # what it wraps as done. Kernels that do not call an optimizer's `step` can so do without.
        inspect.unwrap(method).__dict__.setdefault("__dynamo_disable", inspect.unwrap(method))


def seed_torch(seed: int, device: str) -> None:
    """Seeds torch's global streams of the CPU and of the device.

    `torch.manual_seed` also notes, with the stack it was called from, what to do for each kind of accelerator that is
    not in use: a hundred looks at the disk a call, and memory that is never let go.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed_all(seed)


@dataclass
class Workshop:
    """Built once a process and shared by its jobs. Keeps the data set used last in memory."""

    registry: Registry
    data_folder: Path
    device: str
    store: Store | None = None
    decoded: set[str] = field(default_factory=set)
    """Keys of the decoded data sets in the store that were used."""
    _feed: tuple[Spec, str, Feed, str] | None = field(default=None, repr=False)
    """The data set used last: its spec and fingerprint, and what is wrong with its labels, if anything."""

    def component(self, spec: Spec) -> Any:
        """The component a job names; PluginError where it is not here in that version."""
        offer = self.registry.find(spec.kind, spec.use)
        if offer.provider != spec.provider:
            raise PluginError(
                f"{spec.kind} '{spec.use}' is here from {offer.provider}; the job needs {spec.provider}"
            )
        return offer.cls(**spec.options)

    def feed_of(self, job: Job) -> Feed:
        """The data set of a job. Raises DataError where it is not what it was when the job was made, or where it has
        labels that the job's objective cannot read."""
        return self.feed(job.data, job.objective, job.fingerprint)

    def feed(
        self, spec: Spec, objective: Spec | None = None, fingerprint: str | None = None
    ) -> Feed:
        """The data set on the device, read once, and checked.

        `fingerprint` is what the data must have (None: what it has now); with an `objective` that reads labels as
        classes, labels are checked as well. Raises DataError, PluginError.
        """
        if self._feed is None or self._feed[:2] != (spec, fingerprint or self._feed[1]):
            self._feed = None
            source: DataSource = self.component(spec)
            current = fingerprint_of(source, self.data_folder)
            if fingerprint not in (None, current):
                raise DataError(
                    f"data '{spec.use}': its files changed while the study ran (fingerprint {current[:8]}, not "
                    f"{fingerprint[:8]}); run the same command again"
                )
            facts = facts_of(source, self.data_folder)
            splits = self._splits(source, spec, current)
            check(source.use, facts, splits)
            feed = Feed(splits, facts, self.device)
            self._feed = (spec, current, feed, wrong_label(source.use, facts.classes, splits))
        _, _, feed, wrong = self._feed
        if wrong and objective is not None and self.component(objective).labels_are_classes:
            raise DataError(f"{wrong}, as the objective '{objective.use}' reads them")
        return feed

    def _splits(self, source: DataSource, spec: Spec, fingerprint: str) -> Dataset:
        """The examples; with a store from its decoded copy, which all processes of a machine map into one memory."""
        if self.store is None:
            return self._unchanged(source, fingerprint)
        derivation = ["decoded", spec.canonical(), fingerprint]
        key = digest(derivation)
        if self.store.path(key, "data") is None:
            splits = self._unchanged(source, fingerprint)
            if splits.mapped:
                return splits
            try:
                with self.store.write(key, "data", derivation) as folder:
                    save_splits(folder, splits)
            except StoreError as error:
                if not is_denied(error):
                    raise
                return splits  # a store that may only be read serves finished runs
        self.decoded.add(key)
        place = self.store.path(key, "data")
        return load_splits(place) if place else self._unchanged(source, fingerprint)

    def _unchanged(self, source: DataSource, fingerprint: str) -> Dataset:
        """The examples as the source gives them. Raises DataError for files that changed while they were read."""
        splits = load(source, self.data_folder)
        if source.fingerprint(self.data_folder) != fingerprint:
            raise DataError(
                f"data '{source.use}': its files changed while they were read; run the same command again"
            )
        return splits

    def network(
        self, spec: Spec, data: Feed | DatasetInfo, objective: Spec | None = None
    ) -> torch.nn.Module:
        """The network of a job on the device, by default one that classifies. What the job's values do not hold of it,
        such as a random buffer outside its state, is drawn under a seed of the spec's own: every build is the same."""
        import torch

        with torch.random.fork_rng(devices=[]):
            seed_torch(seed_of("network", spec.digest), self.device)
            model: ModelFamily = self.component(spec)  # it may draw when it is made
            outputs = (
                self.component(objective).output_size(data.shape, data.classes)
                if objective
                else data.classes
            )
            return model.build(data.shape, outputs).to(self.device)


def save_splits(folder: Path, splits: Dataset) -> None:
    """Writes a data set's examples as `load_splits` reads them."""
    parts = {
        f"{part}.{name}": getattr(getattr(splits, part), name)
        for part in _PARTS
        for name in ("inputs", "labels")
    }
    moments = json.dumps({"mean": splits.mean, "std": splits.std})
    tensors.save(folder / "splits.safetensors", parts, meta={"moments": moments}, flush=False)


def load_splits(folder: Path) -> Dataset:
    """A data set's examples, mapped into memory."""
    path = folder / "splits.safetensors"
    parts, _ = tensors.load(path)
    moments = {
        name: tuple(values)
        for name, values in json.loads(tensors.load_meta(path)["moments"]).items()
    }
    train, validation, test = (
        Subset(parts[f"{part}.inputs"], parts[f"{part}.labels"]) for part in _PARTS
    )
    return Dataset(train, validation, test, moments["mean"], moments["std"])


def load(source: DataSource, folder: Path) -> Dataset:
    """The data set's examples as the source gives them, checked against its facts and what the engine relies on.

    Labels are not checked here, since not every objective reads them as classes. Raises DataError, PluginError.
    """
    try:
        splits = source.load(folder)
    except LotteryError:
        raise
    except Exception as error:
        raise PluginError(
            f"data '{source.use}' broke in load(): {type(error).__name__}: {error}"
        ) from error
    check(source.use, facts_of(source, folder), splits)
    for part in _PARTS:
        _refuse_not_finite(source.use, part, getattr(splits, part).inputs)
    return splits


def facts_of(source: DataSource, folder: Path) -> DatasetInfo:
    """The facts of a data set. Raises DataError, and PluginError for a source that breaks."""
    try:
        facts = source.facts(folder)
    except LotteryError:
        raise
    except Exception as error:
        raise PluginError(
            f"data '{source.use}' broke in facts(): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(facts, DatasetInfo):
        raise ContractError(
            f"data '{source.use}': facts() returned {type(facts).__name__}, not DatasetInfo"
        )
    return facts


def check(use: str, facts: DatasetInfo, splits: Dataset) -> None:
    """Raises ContractError for examples of types that the engine does not read, or that `facts` did not promise."""
    import torch

    if not isinstance(splits, Dataset):
        raise ContractError(f"data '{use}': load() returned {type(splits).__name__}, not Dataset")
    for part in _PARTS:
        split, promised = getattr(splits, part), getattr(facts, part)
        if (
            split.inputs.dtype not in (torch.uint8, torch.float32)
            or split.labels.dtype != torch.int64
        ):
            raise ContractError(
                f"data '{use}': {part} has inputs {split.inputs.dtype} and labels {split.labels.dtype}; "
                "uint8 or float32 and int64 are needed"
            )
        if split.labels.dim() != 1:
            raise ContractError(
                f"data '{use}': {part} has labels of shape {list(split.labels.shape)}, not one each"
            )
        if len(split.inputs) != len(split.labels) or not len(split.labels):
            raise ContractError(
                f"data '{use}': {part} has {len(split.inputs)} inputs and {len(split.labels)} labels"
            )
        if len(split.labels) != promised:
            raise ContractError(
                f"data '{use}': {part} has {len(split.labels)} examples; its facts promise {promised}"
            )
        if tuple(split.inputs.shape[1:]) != tuple(facts.shape):
            raise ContractError(
                f"data '{use}': {part} has inputs of shape {list(split.inputs.shape[1:])}; its facts promise "
                f"{list(facts.shape)}"
            )
    for name in ("mean", "std"):
        values = getattr(splits, name)
        if len(values) not in (1, facts.shape[0]) or not all(map(isfinite, values)):
            raise ContractError(
                f"data '{use}': {name} is {values}; one finite number is needed, or one for each of {facts.shape[0]} "
                "channels"
            )
    if min(splits.std) <= 0:
        raise ContractError(
            f"data '{use}': std is {splits.std}; inputs are divided by it, so it must be positive"
        )


def wrong_label(use: str, classes: int, splits: Dataset) -> str:
    """The first label outside 0 … classes - 1, in words; "" where there is none."""
    for part in _PARTS:
        labels = getattr(splits, part).labels
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            index = int(outside.nonzero()[0])
            return (
                f"data '{use}': {part} has label {int(labels[index])} at example {index} ({int(outside.sum())} such "
                f"labels in all); its facts promise {classes} classes, so labels must lie in 0 … {classes - 1}"
            )
    return ""


def _refuse_not_finite(use: str, part: str, inputs: torch.Tensor) -> None:
    import torch

    if inputs.dtype == torch.uint8:
        return
    for start in range(
        0, len(inputs), EVALUATION_CHUNK
    ):  # all at once would take as much memory again
        finite = torch.isfinite(inputs[start : start + EVALUATION_CHUNK]).flatten(1).all(1)
        if not finite.all():
            index = start + int((~finite).nonzero()[0])
            values = inputs[index][~torch.isfinite(inputs[index])]
            raise DataError(
                f"data '{use}': {part} has the input {float(values[0])} at example {index}, where finite numbers are "
                f"needed ({len(values)} of its {inputs[index].numel()} values are not finite)"
            )
