"""Jobs as files in the store: on their way to a worker process, or waiting for their turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.errors import LotteryError, StoreError
from lotteryfw.api.network_state import NetworkState
from lotteryfw.search.jobs import Job, ProbeJob, Train, from_plain
from lotteryfw.store import Store, check_spooled, tensors

if TYPE_CHECKING:
    from torch import Tensor

_VALUES = "values/"
_OPTIMIZER = "optimizer/"


class DamagedJob(LotteryError):
    """A job that was spooled is not what was written. It is not trained from."""


def spool(job: Job, store: Store) -> str:
    """Write a job into the store for `unspool`, here or in another process, and return its name.

    The name is nobody else's, so that several runs may spool one job. The caller deletes the file
    with `Store.drop_spooled`.
    """
    optimizer_state = job.optimizer_state if isinstance(job, Train) else None
    scores = {} if isinstance(job, ProbeJob) else job.scores
    network = NetworkState(job.values, scores=scores)
    values = _prefixed(_VALUES, network.encoded()) | _prefixed(_OPTIMIZER, optimizer_state or {})
    plain = {**job.plain(), "has_optimizer": optimizer_state is not None}
    about = {"key": job.key, "job": json.dumps(plain)}
    return store.spool(tensors.pack(values, _prefixed(_VALUES, job.mask), about))


def unspool(name: str, store: Store) -> Job:
    """Return the job of this name. Raises DamagedJob where it is not what was written."""
    path = store.spooled(name)
    try:
        check_spooled(path)
        values, mask, about = tensors.load_with_meta(path)
        plain = json.loads(about["job"])
        has_optimizer = plain.pop("has_optimizer")
        network = NetworkState.decoded(_with_prefix(_VALUES, values))
        job = from_plain(
            plain,
            values=network.values,
            scores=network.scores,
            mask=_with_prefix(_VALUES, mask),
            optimizer_state=_with_prefix(_OPTIMIZER, values) if has_optimizer else None,
        )
        # The key is computed anew from what was read, so damage anywhere shows.
        if job.key != about["key"]:
            raise ValueError("its tensors and settings are not those of the job that was spooled")
    except (StoreError, ValueError, KeyError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DamagedJob(
            f"{path}: a job that waited there for its training is damaged ({reason}), and was not "
            "trained from: run the same command again, which makes the job anew"
        ) from error
    return job


def _prefixed(prefix: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in named.items()}


def _with_prefix(prefix: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have this prefix, without it."""
    chosen: dict[str, Tensor] = {}
    for name, tensor in named.items():
        if name.startswith(prefix):
            chosen[name.removeprefix(prefix)] = tensor
    return chosen
