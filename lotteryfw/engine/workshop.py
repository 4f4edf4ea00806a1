"""What one process needs to run jobs: components built from their specs, data sets in memory, the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.engine.feed import Feed
from lotteryfw.errors import ContractError, LotteryError, PluginError, UsageError
from lotteryfw.jobs import Spec
from lotteryfw.kinds import DataSource, ModelFamily
from lotteryfw.registry import Registry
from lotteryfw.views import Splits

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda"; UsageError where it is not to be had."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called '{name}'; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda': this torch sees no CUDA device; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def settle_process() -> None:
    """One torch thread (with more, small nets crawl on a machine that others use) and repeatable convolutions."""
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@dataclass
class Workshop:
    """Built once a process and shared by its jobs. Keeps the data set used last in memory."""

    registry: Registry
    data_folder: Path
    device: str
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
            self._feed = (spec, Feed(load(source, self.data_folder), source.facts(self.data_folder), self.device))
        return self._feed[1]

    def network(self, spec: Spec, feed: Feed) -> torch.nn.Module:
        """The network of a job on the device; its values are whatever it was built with."""
        import torch

        model: ModelFamily = self.component(spec)
        with torch.random.fork_rng(devices=[]):
            return model.build(feed.shape, feed.classes).to(self.device)


def load(source: DataSource, folder: Path) -> Splits:
    """The data set's examples, checked against what the engine relies on. Raises DataError, ContractError."""
    import torch

    try:
        splits = source.load(folder)
    except LotteryError:
        raise
    except Exception as error:
        raise PluginError(f"data '{source.use}' broke in load(): {type(error).__name__}: {error}") from error
    for part in ("train", "validation", "test"):
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
