"""The context in which one process runs jobs: its device, its data set, components from specs.

Importing this module does not import torch: a plan makes an `EngineContext` and needs none.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.data import Dataset, DatasetInfo, StreamedDataset
from lotteryfw.api.errors import DataError, StoreError
from lotteryfw.api.fingerprints import fingerprint_of
from lotteryfw.api.kinds import DataSource, ModelFamily
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.rng import Stream, seed_of
from lotteryfw.engine.dataset_loading import (
    check_dataset,
    dataset_info,
    describe_wrong_label,
    load_dataset,
    map_decoded,
    save_decoded,
)
from lotteryfw.registry import Registry
from lotteryfw.search.jobs import Evaluate, Job, Spec, Train, digest
from lotteryfw.store import Store, is_denied

if TYPE_CHECKING:
    import torch

    from lotteryfw.engine.device_dataset import DeviceDataset


def describe_bf16(device: str) -> str:
    """Return, for a person, whether the device has units for `train.precision = "bf16"`."""
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "the GPU has units for it"
        return "the GPU has no units for it: float32 or fp16 is faster"
    units = []
    if torch.cpu._is_amx_tile_supported():
        units.append("AMX")
    if torch.cpu._is_avx512_bf16_supported():
        units.append("AVX512_BF16")
    if units:
        return f"the CPU has units for it ({', '.join(units)})"
    return "the CPU has no units for it (AMX, AVX512_BF16): float32 is faster"


def configure_torch() -> None:
    """Set torch up for trainings that repeat bit for bit, in one thread.

    With more threads, small networks crawl on a machine that others use too. Products and
    convolutions of float32 are not rounded to the 10 bits of TF32 or the 7 bits of bfloat16. What
    the session had set otherwise is not in keys, so it is set back, and stays so.
    """
    import torch
    from torch.optim import Optimizer

    # One training for each process; a study fills the cores with several of them.
    torch.set_num_threads(1)
    torch.backends.cudnn.enabled = True
    torch.backends.cudnn.deterministic = True
    # It times algorithms and keeps the fastest, so two runs may choose differently.
    torch.backends.cudnn.benchmark = False
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    _forbid_rounding()

    # At its first call, torch imports its compiler, 1.5 s and 150 MB, only to keep it out of these
    # methods, and marks those that it has wrapped. Marked from the start, they do not import it;
    # kernels that do not call an optimizer's `step` then do without.
    methods = (
        Optimizer.add_param_group,
        Optimizer.zero_grad,
        Optimizer.state_dict,
        Optimizer.load_state_dict,
    )
    for method in methods:
        function = inspect.unwrap(method)
        function.__dict__.setdefault("__dynamo_disable", function)


def _forbid_rounding() -> None:
    """Set back wherever torch was allowed to round float32, in the versions that have such places.

    The older settings, `allow_tf32` among them, leave what was set here as it is.
    """
    from torch import backends

    places: list[Any] = [backends, backends.cuda.matmul]
    for library in (backends.mkldnn, backends.cudnn):
        places.append(library)
        places += [getattr(library, name, None) for name in ("matmul", "conv", "rnn")]
    for place in places:
        # "none" is torch's own default, and rounds nothing once TF32 is forbidden
        if getattr(place, "fp32_precision", "none") not in ("none", "ieee"):
            place.fp32_precision = "ieee"


def python_command(module: str) -> list[str]:
    """Return the command that calls `main` of a module in a new process.

    The process imports from where this one does. `python -m` would look into the current folder
    first, where a file such as queue.py would take the place of the standard library's.
    """
    folders = [folder for folder in sys.path if isinstance(folder, str)]
    # in ASCII, since a command line cannot hold every character of a path
    code = f"import sys; sys.path[:] = {folders!a}; from {module} import main; main()"
    return [sys.executable, "-P", "-c", code]


def layer_infos(model: ModelFamily, module: torch.nn.Module) -> tuple[LayerInfo, ...]:
    """Return the prunable layers of a network that the model built, in its order."""
    names = model.prunable(module)
    parameters = dict(module.named_parameters())
    layers = []
    for name in names:
        layers.append(LayerInfo(name, tuple(parameters[name].shape), is_output=name == names[-1]))
    return tuple(layers)


def seed_torch(seed: int, device: str) -> None:
    """Seed torch's global generators of the CPU and of the device.

    `torch.manual_seed` also notes, with the stack that it was called from, what to do for each
    kind of accelerator that is not in use: a hundred looks at the disk for each call, and memory
    that is never released.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed_all(seed)


@dataclass(frozen=True)
class _CachedDataset:
    """The data set that was used last."""

    spec: Spec
    fingerprint: str
    dataset: DeviceDataset
    wrong_label: str
    """The first label that is no class, in words, or ""."""


@dataclass(frozen=True)
class _CachedNetwork:
    """The network that was measured last, for measurements alone."""

    digest: str
    module: torch.nn.Module
    buffers: Mapping[str, torch.Tensor]
    """Copies of its buffers as they were built; a measurement may write to those of the module."""


@dataclass
class EngineContext:
    """The device, components and data that the jobs of one process share.

    It keeps the data set that was used last in memory, and the network that was measured last.
    """

    registry: Registry
    data_folder: Path
    device: str
    store: Store | None = None
    decoded: set[str] = field(default_factory=set)
    """Keys of the decoded data sets in the store that were used."""
    last_points: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By the keys of running trainings, loss and accuracy of the last evaluation."""
    group_limits: dict[str, int] = field(default_factory=dict)
    """By the likeness of trainings that did not fit in step, how many at most do, as it seems."""
    _cached: _CachedDataset | None = field(default=None, repr=False)
    _measured: _CachedNetwork | None = field(default=None, repr=False)

    def component(self, spec: Spec) -> Any:
        """Build the component that a job names.

        Raises PluginError where it is not installed in that version.
        """
        return self.registry.from_job(spec.kind, spec.use, spec.provider, spec.options)

    def dataset_of(self, job: Job) -> DeviceDataset:
        """Return the data set of a job.

        Raises DataError where it is not what it was when the job was made, or where it has labels
        that the job's objective cannot read.
        """
        return self.dataset(job.data, job.objective, job.fingerprint)

    def dataset(
        self, spec: Spec, objective: Spec | None = None, fingerprint: str | None = None
    ) -> DeviceDataset:
        """Return the data set on the device, read once, and checked.

        `fingerprint` is that which the data must have; None accepts any. With an `objective` that
        reads labels as classes, labels are checked as well. Raises DataError, PluginError.
        """
        cached = self._cached
        if cached is None or cached.spec != spec or fingerprint not in (None, cached.fingerprint):
            # The old data set is released before the new one is read.
            cached = self._cached = None
            cached = self._cached = self._load(spec, fingerprint)
        wrong = cached.wrong_label
        if wrong and objective is not None and self.component(objective).labels_are_classes:
            raise DataError(f"{wrong}, as the objective '{objective.use}' reads them")
        return cached.dataset

    def _load(self, spec: Spec, fingerprint: str | None) -> _CachedDataset:
        from lotteryfw.engine.device_dataset import DeviceDataset

        source: DataSource = self.component(spec)
        # Before the examples are read: a file that changes meanwhile is noticed after it.
        current = fingerprint_of(source, self.data_folder)
        if fingerprint is not None and fingerprint != current:
            raise DataError(
                f"data '{spec.use}': its files changed while the study ran (fingerprint "
                f"{current[:8]}, not {fingerprint[:8]}); run the same command again"
            )
        info = dataset_info(source, self.data_folder)
        dataset: Dataset | StreamedDataset
        if info.streamed:
            # Nothing is decoded once for all: each epoch reads the files.
            dataset = self._unchanged(source, current)
        else:
            dataset = self._examples(source, spec, current)
        check_dataset(source.use, info, dataset)
        wrong_label = describe_wrong_label(source.use, info.classes, dataset)
        return _CachedDataset(spec, current, DeviceDataset(dataset, info, self.device), wrong_label)

    def _examples(self, source: DataSource, spec: Spec, fingerprint: str) -> Dataset:
        """Return the examples.

        With a store they come from its decoded copy, which all processes of a machine map into
        one memory.
        """
        if self.store is None:
            return self._unchanged_whole(source, fingerprint)
        derivation = ["decoded", spec.canonical(), fingerprint]
        key = digest(derivation)
        if self.store.path(key, "data") is None:
            dataset = self._unchanged_whole(source, fingerprint)
            if dataset.mapped:
                return dataset
            try:
                with self.store.write(key, "data", derivation) as folder:
                    save_decoded(folder, dataset)
            except StoreError as error:
                # A store that may only be read serves finished runs.
                if not is_denied(error):
                    raise
                return dataset
        self.decoded.add(key)
        path = self.store.path(key, "data")
        return map_decoded(path) if path else self._unchanged_whole(source, fingerprint)

    def _unchanged_whole(self, source: DataSource, fingerprint: str) -> Dataset:
        dataset = self._unchanged(source, fingerprint)
        # It was compared with its facts, which say so.
        assert isinstance(dataset, Dataset)
        return dataset

    def _unchanged(self, source: DataSource, fingerprint: str) -> Dataset | StreamedDataset:
        """Return the examples as the source gives them.

        Raises DataError for files that changed while they were read.
        """
        dataset = load_dataset(source, self.data_folder)
        if source.fingerprint(self.data_folder) != fingerprint:
            raise DataError(
                f"data '{source.use}': its files changed while they were read; "
                "run the same command again"
            )
        return dataset

    def network(
        self, spec: Spec, data: DeviceDataset | DatasetInfo, objective: Spec | None = None
    ) -> torch.nn.Module:
        """Build the network of a job on the device, by default one that classifies.

        Whatever the job's values do not hold, such as a random buffer outside the state dict, is
        drawn under a seed of the spec's own: every build is the same.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            seed_torch(seed_of(Stream.NETWORK, spec.digest), self.device)
            # A model may draw when it is made, so it is made under the seed.
            model: ModelFamily = self.component(spec)
            info = data if isinstance(data, DatasetInfo) else data.info
            output_size = info.classes
            if objective is not None:
                output_size = self.component(objective).output_size(info.shape, info.classes)
            return model.build_for(info, output_size).to(self.device)

    def network_to_measure(self, job: Train | Evaluate) -> torch.nn.Module:
        """Return the network of a job for a computation in the evaluation mode.

        It is built, and copied to the device, once for a series of measurements: whoever asks next
        gets the same module, with its buffers as they were built.
        """
        parts = (job.model.digest, job.data.digest, job.objective.digest, job.fingerprint)
        wanted = digest(list(parts))
        cached = self._measured
        if cached is None or cached.digest != wanted:
            # The old network is released before the new one is built.
            cached = self._measured = None
            module = self.network(job.model, self.dataset_of(job), job.objective)
            buffers = {name: value.clone() for name, value in module.named_buffers()}
            cached = self._measured = _CachedNetwork(wanted, module, buffers)
        else:
            for name, value in cached.module.named_buffers():
                value.copy_(cached.buffers[name])
        return cached.module
