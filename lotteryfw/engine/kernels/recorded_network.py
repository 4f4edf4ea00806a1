"""Recorded updates of a training that has a network of its own."""

from __future__ import annotations

import torch

from lotteryfw.engine.kernels.captured import (
    Batches,
    GatheredBatches,
    LearningRates,
    LoadedBatches,
    RecordedUpdates,
    recorder_for,
)
from lotteryfw.engine.kernels.trained_network import TrainedNetwork


def recorded_updates(network: TrainedNetwork, device: str) -> RecordedUpdates | None:
    """Return the updates of a network from a recording, where device and optimizer allow one."""
    recorder = recorder_for(network.optimizer, device)
    job, dataset = network.job, network.dataset
    # The second forward pass of a checkpointed block reads and sets torch's generators, which a
    # recording does not allow; nor was one tried with exchanges between devices.
    if recorder is None or job.activation_checkpointing or job.devices > 1:
        return None
    batches: Batches
    if job.augment or not dataset.is_on_device:
        batches = LoadedBatches(network.batch)
    else:
        batches = GatheredBatches(
            dataset, network.drawn_order, job.batch, job.steps_per_epoch, device
        )
    rates = LearningRates(network.optimizer, device)
    recorded = RecordedUpdates(recorder, batches, rates, torch.zeros((), device=device))
    network.on_restore = recorded.forget
    if dataset.is_on_device:
        network.recorded_evaluation = recorded.evaluation
    return recorded
