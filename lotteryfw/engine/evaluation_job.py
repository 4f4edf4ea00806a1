"""Carries out `Evaluate` jobs: loss, accuracy and metrics of a network as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError, naming
from lotteryfw.api.kinds import Metric, Objective
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.arithmetic import Arithmetic
from lotteryfw.engine.batch_norm import recalibrated
from lotteryfw.engine.evaluate import summed_metrics, to_device
from lotteryfw.engine.learned_mask import LearnedMask
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Evaluate, Spec

Values = Mapping[str, Tensor]


def evaluate_network(job: Evaluate, context: EngineContext) -> Evaluation:
    """Return the figures that a job asks for.

    Under a learned mask they are means over the draws of masks that the parametrization asks for.
    Raises ContractError for a metric that breaks.
    """
    dataset = context.dataset_of(job)
    module = context.network_to_measure(job)
    objective: Objective = context.component(job.objective)
    metrics = [_Measured(context.component(spec), spec) for spec in job.metrics]
    arithmetic = Arithmetic.of(job)

    sums: list[Tensor] = []
    for values in _networks(job, context, module):
        if job.recalibrate:
            values = recalibrated(job, context, module, values, dataset)
        # After the recalibration, which works on buffers and leaves weights alone.
        values = {name: arithmetic.laid_out(value) for name, value in values.items()}
        for metric in metrics:
            metric.begin_network()
        sums.append(
            summed_metrics(module, values, dataset, job.part, objective, arithmetic, metrics)
        )

    examples = len(dataset.labels(job.part))
    # The first wait for the device; a metric's values are copied to the host after it.
    means = (torch.stack(sums).cpu() / examples).mean(0)
    loss, accuracy = means.tolist()
    figures = {metric.name: metric.mean_result() for metric in metrics}
    return Evaluation(loss, accuracy, figures)


def _networks(job: Evaluate, context: EngineContext, module: torch.nn.Module) -> Iterator[Values]:
    """Yield the parameters and buffers to compute with: one network, or one for each drawn mask."""
    state = to_device(module, NetworkState(job.values, scores=job.scores), context.device)
    if job.parametrization is None:
        yield state.values
    else:
        yield from LearnedMask(job, context, module, state).evaluated_weights()


class _Measured:
    """A metric and what it measured so far: for each network, the tensors of its batches."""

    def __init__(self, metric: Metric, spec: Spec):
        self.metric = metric
        self.name = metric.name()
        self._who = f"metric '{metric.use}' of {spec.provider}"
        self._networks: list[list[Tensor]] = []

    def begin_network(self) -> None:
        """Note that what is measured from now on is of another network."""
        self._networks.append([])

    def observe(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> None:
        """Measure a batch. The result stays on the device. Raises ContractError."""
        with naming(self._who, "per_example()"):
            values = self.metric.per_example(outputs, inputs, labels)
        if not isinstance(values, Tensor) or values.shape[:1] != outputs.shape[:1]:
            shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ContractError(
                f"{self._who}: per_example() returned {shape}; it must return a tensor whose first "
                f"size is that of the batch, {len(outputs)}"
            )
        self._networks[-1].append(values)

    def mean_result(self) -> float:
        """Return the metric's result, the mean over the networks. Raises ContractError."""
        results = [self._result(torch.cat(values).cpu()) for values in self._networks]
        return sum(results) / len(results)

    def _result(self, values: Tensor) -> float:
        with naming(self._who, "result()"):
            result = self.metric.result(values)
        if not isinstance(result, Real):
            raise ContractError(
                f"{self._who}: result() returned {type(result).__name__}, not a number"
            )
        return float(result)
