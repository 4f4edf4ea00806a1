"""The devices that worker processes share, and which of them takes the next group of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lotteryfw.api.errors import UsageError

MAX_FAILURES = 2
"""Failures in a row, with no job finished between them, after which a device gets no more jobs."""


@dataclass(eq=False)
class DeviceSlot:
    """A device, and how many worker processes it takes.

    `gpu` is its name in `CUDA_VISIBLE_DEVICES`; None for the CPU, or where the processes see what
    the run sees.
    """

    gpu: str | None
    processes: int
    failures: int = 0
    """Failures since the last job that was finished on it."""
    in_service: bool = True

    @property
    def name(self) -> str:
        """The device as messages call it."""
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"


def gpu_groups(gpus: Sequence[str], devices: int) -> list[str]:
    """Return the GPUs in groups of as many as train one network together, each group as one name.

    The GPUs that are left over are not used. Raises UsageError for fewer than a group.
    """
    if gpus and len(gpus) < devices:
        raise UsageError(
            f"engine.devices = {devices}: a network is to be trained on so many GPUs together, and "
            f"this run has {len(gpus)}; set engine.devices to that, or run with --device cpu"
        )
    groups = []
    for start in range(0, len(gpus) - devices + 1, devices):
        groups.append(",".join(gpus[start : start + devices]))
    return groups


def device_slots(processes: int, gpus: Sequence[str]) -> list[DeviceSlot]:
    """Return the devices for a number of worker processes, spread evenly over the GPUs.

    Without GPUs all processes are on one device.
    """
    if not gpus:
        return [DeviceSlot(None, processes)]
    slots = []
    for index, gpu in enumerate(gpus):
        share = processes // len(gpus) + (index < processes % len(gpus))
        # With fewer processes than GPUs, the last of these are not used.
        if share:
            slots.append(DeviceSlot(gpu, share))
    return slots
