"""Requests for evaluations: forward passes of a ticket, or of a training's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.api.kinds import DataSource, Metric
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.context import Describe, SearchContext, digest_of
from lotteryfw.search.jobs import Evaluate, Spec
from lotteryfw.search.requests import JobRequest, has_statistics, recalibration_batches

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("train", "validation", "test")


class EvaluationFactory:
    """Makes the evaluations of one cell's networks."""

    def __init__(self, context: SearchContext, describe_component: Describe):
        self._context = context
        self._describe_component = describe_component

    def evaluation(
        self,
        network: Ticket | Trained,
        part: str,
        metrics: Sequence[Metric] = (),
        recalibrate: int | None = None,
        data: DataSource | None = None,
    ) -> JobRequest:
        """Return the request for an evaluation of a ticket's values, or of a training's end.

        `data` is another data set than the cell's, if any.

        `recalibrate` is the number of training batches that the statistics of batch normalisation
        are computed anew over; None: as many as `RECALIBRATION_BATCHES` or an epoch for a ticket,
        whose statistics are not those of its values, and 0 after a training. Raises UsageError.
        """
        if part not in PARTS:
            raise UsageError(f"lab.evaluate: there is no part '{part}' ({nearest(part, PARTS)})")
        if recalibrate is not None and (type(recalibrate) is not int or recalibrate < 0):
            raise UsageError(
                "lab.evaluate: recalibrate_batch_norm is a number of batches of at least 0, or "
                f"None; not {recalibrate!r}"
            )
        other = None if data is None else self._other_data(data)
        if other is not None:
            if recalibrate:
                raise UsageError(
                    "lab.evaluate: statistics of batch normalisation are computed anew over the "
                    "cell's own training data: leave recalibrate_batch_norm or `data` out"
                )
            recalibrate = 0
        if recalibrate is None:
            batches = recalibration_batches(self._context)
            recalibrate = batches if isinstance(network, Ticket) else 0
        specs = tuple(self._describe(metric) for metric in metrics)
        ticket = network if isinstance(network, Ticket) else network.ticket
        build = partial(
            self._build,
            network=network,
            part=part,
            metrics=specs,
            recalibrate=recalibrate,
            other=other,
        )
        origin = self._origin(network, part, specs, recalibrate)
        if other is not None:
            spec, fingerprint = other
            origin = digest_of(origin, "over", spec.digest, fingerprint)
        decides = self._context.origins_decide
        return JobRequest("evaluation", build, ticket, origin, decides=decides)

    def _other_data(self, data: DataSource) -> tuple[Spec, str]:
        """Return a data set as jobs name it, and its fingerprint.

        Raises UsageError where its inputs or outputs have other sizes than the network's, and
        DataError where its files are not there.
        """
        if not isinstance(data, DataSource):
            raise UsageError(f"lab.evaluate: data is a data source, not {data!r}")
        context, objective = self._context, self._context.cell.objective
        own, other = context.dataset_info(), context.dataset_info(data)
        sizes = []
        for info in (own, other):
            outputs = objective.output_size(info.shape, info.classes)
            sizes.append((tuple(info.shape), info.vocabulary, outputs))
        if sizes[0] != sizes[1]:
            names = ("inputs {}", "a vocabulary of {}", "{} outputs")
            differing = []
            for name, of_own, of_other in zip(names, *sizes, strict=True):
                if of_own != of_other:
                    differing.append(f"{name.format(of_other)}, not {name.format(of_own)}")
            raise UsageError(
                f"lab.evaluate: the data '{data.use}' asks for {' and '.join(differing)}, as the "
                f"networks of cell {context.cell.id} have"
            )
        spec = self._describe_component(data, context.clock)
        return spec, context.fingerprint_of(data)

    def _describe(self, metric: Metric) -> Spec:
        if not isinstance(metric, Metric):
            raise UsageError(
                f"lab.evaluate: metrics are components such as TopK(k=5), not {metric!r}"
            )
        return self._describe_component(metric, self._context.clock)

    def _origin(
        self, network: Ticket | Trained, part: str, metrics: Sequence[Spec], recalibrate: int
    ) -> str:
        context = self._context
        if isinstance(network, Ticket):
            # A ticket's origin has all of its network and data, but not what a training adds.
            made_from = f"start\x1f{network.origin}"
        else:
            made_from = f"end\x1f{context.training_digest(network)}"
        names = [spec.digest for spec in metrics]
        return digest_of(
            "evaluate", made_from, context.evaluation_digest, part, *names, recalibrate
        )

    def _build(
        self,
        request: JobRequest,
        network: Ticket | Trained,
        part: str,
        metrics: tuple[Spec, ...],
        recalibrate: int,
        other: tuple[Spec, str] | None,
    ) -> Evaluate:
        context, specs = self._context, self._context.specs
        state, mask = _state_of(network)
        fields: dict[str, Any] = {}
        if state.scores:
            ticket = request.ticket
            if not ticket.learns_mask:
                raise UsageError(
                    "lab.evaluate: the training of this level learned its mask; evaluate the "
                    "level's ticket instead"
                )
            fields = {
                "mask": mask,
                "scores": state.scores,
                "parametrization": specs["parametrization"],
                "initialiser": specs["initialiser"],
                "budgets": tuple((group.layers, group.keep) for group in ticket.budgets),
                "mask_seed": context.seeds.of_training(ticket, bool(context.augment)).masks,
            }
        # Without batch normalisation there is nothing to compute anew, and one key for all.
        if recalibrate and has_statistics(state.values):
            fields |= {
                "recalibrate": recalibrate,
                "batch": context.cell.batch,
                "steps_per_epoch": context.clock.steps_per_epoch,
                "augment": context.augment,
                # Of no level and no copy, so that the ends of a line are measured alike.
                "order_seed": context.seeds.order,
                "augment_seed": context.seeds.augment if context.augment else 0,
            }
        return Evaluate(
            model=specs["model"],
            data=specs["data"] if other is None else other[0],
            fingerprint=context.fingerprint if other is None else other[1],
            objective=specs["objective"],
            part=part,
            metrics=metrics,
            device=context.device,
            precision=context.cell.precision,
            memory_format=context.cell.memory_format,
            deterministic=context.cell.deterministic,
            values=state.values,
            origin=request.origin,
            **{"mask": {}, **fields},
        )


def _state_of(network: Ticket | Trained) -> tuple[NetworkState, Mapping[str, Tensor]]:
    """Return a network's values and scores, and its mask: of a learned one, the allowed edges."""
    if isinstance(network, Ticket):
        return NetworkState(network.values, scores=network.scores or {}), network.mask
    scores = network.scores()
    # The mask of a network without scores is in its values.
    mask = network.outcome.mask() if scores else {}
    return NetworkState(network.weights(), scores=scores), mask
