"""Statistics of batch normalisation, computed anew for networks that no training made them for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.evaluate import to_device
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.training_batches import TrainingBatches
from lotteryfw.search.jobs import Evaluate, Train

BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def with_own_statistics(job: Train, context: EngineContext) -> Train:
    """Return a job, under its key, whose network has statistics of its own values.

    It is the job itself unless it asks for that: see `Train.recalibrate`.
    """
    if not job.recalibrate:
        return job
    dataset = context.dataset_of(job)
    module = context.network_to_measure(job)
    values = to_device(module, NetworkState(job.values), context.device).values
    changed = recalibrated(job, context, module, values, dataset)
    buffers = {name for name, _ in module.named_buffers()}
    # On the host, as the values of any job.
    statistics = {name: changed[name].cpu() for name in buffers & changed.keys()}
    return replace(job, values={**job.values, **statistics}, known_key=job.key)


def recalibrated(
    job: Train | Evaluate,
    context: EngineContext,
    module: torch.nn.Module,
    values: Mapping[str, Tensor],
    dataset: DeviceDataset,
) -> dict[str, Tensor]:
    """Return the values with the statistics of batch normalisation computed anew.

    They are the means of the statistics of the first `job.recalibrate` batches of the training,
    augmented as there. All other modules compute as in an evaluation.
    """
    layers = [part for part in module.modules() if isinstance(part, BATCH_NORM)]
    buffers = {name for name, _ in module.named_buffers()}
    # Statistics are updated in place, so the caller's stay as they are.
    changed = dict(values)
    for name in buffers & changed.keys():
        changed[name] = changed[name].clone()

    batches = TrainingBatches(job, context, dataset)
    arithmetic = Arithmetic.of(job)
    module.eval()
    # Several networks are measured with the module, by this job and by others.
    momenta = [layer.momentum for layer in layers]
    with torch.no_grad():
        for step in range(job.recalibrate):
            for layer in layers:
                layer.train()
                # The mean of all batches so far; torch's own way to it waits for the device.
                layer.momentum = 1 / (step + 1)
            inputs, _ = batches(step, job.recalibrate)
            arithmetic.outputs(module, changed, inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return changed
