"""What one process needs to run jobs: components built from their specs, data sets in memory, the device."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.engine.feed import Feed
from lotteryfw.errors import ContractError, LotteryError, PluginError, StoreError, UsageError
from lotteryfw.jobs import Spec, digest
from lotteryfw.kinds import DataSource, ModelFamily
from lotteryfw.registry import Registry
from lotteryfw.rng import seed_of
from lotteryfw.store import Store, is_denied, tensors
from lotteryfw.views import Facts, Split, Splits

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
    """One torch thread (with more, small nets crawl on a machine that others use), repeatable convolutions, and no
    compiler that nobody asked for."""
    import torch
    from torch.optim import Optimizer

    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
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
    _feed: tuple[Spec, Feed] | None = field(default=None, repr=False)

    def component(self, spec: Spec) -> Any:
        """The component a job names; PluginError where it is not here in that version."""
        offer = self.registry.find(spec.kind, spec.use)
        if offer.provider != spec.provider:
            raise PluginError(f"{spec.kind} '{spec.use}' is here from {offer.provider}; the job needs {spec.provider}")
        return offer.cls(**spec.options)

    def feed(self, spec: Spec) -> Feed:
        """The data set of a job on the device, read once."""
        if self._feed is None or self._feed[0] != spec:
            self._feed = None
            source: DataSource = self.component(spec)
            splits = self._splits(source, spec)
            self._feed = (spec, Feed(splits, source.facts(self.data_folder), self.device))
        return self._feed[1]

    def _splits(self, source: DataSource, spec: Spec) -> Splits:
        """The examples; with a store from its decoded copy, which all processes of a machine map into one memory."""
        if self.store is None:
            return load(source, self.data_folder)
        derivation = ["decoded", spec.canonical(), source.fingerprint(self.data_folder)]
        key = digest(derivation)
        if self.store.path(key, "data") is None:
            splits = load(source, self.data_folder)
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
        return load_splits(place) if place else load(source, self.data_folder)

    def network(self, spec: Spec, data: Feed | Facts, objective: Spec | None = None) -> torch.nn.Module:
        """The network of a job on the device, by default one that classifies. What the job's values do not hold of it,
        such as a random buffer outside its state, is drawn under a seed of the spec's own: every build is the same."""
        import torch

        with torch.random.fork_rng(devices=[]):
            seed_torch(seed_of("network", spec.digest), self.device)
            model: ModelFamily = self.component(spec)  # it may draw when it is made
            outputs = self.component(objective).outputs(data.shape, data.classes) if objective else data.classes
            return model.build(data.shape, outputs).to(self.device)


def save_splits(folder: Path, splits: Splits) -> None:
    """Writes a data set's examples as `load_splits` reads them."""
    parts = {f"{part}.{name}": getattr(getattr(splits, part), name) for part in _PARTS for name in ("inputs", "labels")}
    moments = json.dumps({"mean": splits.mean, "std": splits.std})
    tensors.save(folder / "splits.safetensors", parts, meta={"moments": moments}, flush=False)


def load_splits(folder: Path) -> Splits:
    """A data set's examples, mapped into memory."""
    path = folder / "splits.safetensors"
    parts, _ = tensors.load(path)
    moments = {name: tuple(values) for name, values in json.loads(tensors.load_meta(path)["moments"]).items()}
    train, validation, test = (Split(parts[f"{part}.inputs"], parts[f"{part}.labels"]) for part in _PARTS)
    return Splits(train, validation, test, moments["mean"], moments["std"])


def load(source: DataSource, folder: Path) -> Splits:
    """The data set's examples, checked against what the engine relies on. Raises DataError, ContractError."""
    import torch

    try:
        splits = source.load(folder)
    except LotteryError:
        raise
    except Exception as error:
        raise PluginError(f"data '{source.use}' broke in load(): {type(error).__name__}: {error}") from error
    for part in _PARTS:
        split = getattr(splits, part)
        if split.inputs.dtype not in (torch.uint8, torch.float32) or split.labels.dtype != torch.int64:
            raise ContractError(
                f"data '{source.use}': {part} has inputs {split.inputs.dtype} and labels {split.labels.dtype}; "
                "uint8 or float32 and int64 are needed"
            )
        if len(split.inputs) != len(split.labels) or not len(split.labels):
            raise ContractError(
                f"data '{source.use}': {part} has {len(split.inputs)} inputs and {len(split.labels)} labels"
            )
    return splits
