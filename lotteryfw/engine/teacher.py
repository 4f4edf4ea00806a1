"""Teachers: trained networks that an objective compares the network in training with."""

from __future__ import annotations

import torch
from torch import Tensor

from lotteryfw.api.errors import LotteryError
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.evaluate import to_device
from lotteryfw.engine.outcomes import StoredOutcome
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Train


class Teacher:
    """The network that another training of the same cell ended with.

    Its weights are read from the store by the key of that training, so a checkpoint of the student
    holds none of them.
    """

    def __init__(self, job: Train, context: EngineContext, dataset: DeviceDataset):
        if context.store is None:
            raise LotteryError(f"the teacher {job.teacher} is in a store, and there is none here")
        # A module of its own: the student's is in the training mode, and captured as it is.
        self._module = context.network(job.model, dataset, job.objective).eval()
        self._arithmetic = Arithmetic.of(job)
        state = StoredOutcome(context.store, job.teacher).tensors()
        values = to_device(self._module, state, context.device).values
        self._values = {name: self._arithmetic.laid_out(value) for name, value in values.items()}

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return its outputs for a batch, in the evaluation mode and without a gradient."""
        with torch.no_grad():
            return self._arithmetic.outputs(self._module, self._values, inputs)
