"""The sparse kernel: a chain whose cost falls with the density of its masks (see `sparse_chain`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from lotteryfw.engine.kernels.chain import chain_of
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train
from lotteryfw.store.tensors import is_plus_zero

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lotteryfw.engine.kernels.sparse_chain import Update
    from lotteryfw.engine.kernels.sparse_loops import Loops

Backend = Literal["numba", "torch"]

SPARSE_BELOW: dict[Backend, float] = {"numba": 0.3, "torch": 0.2}
"""Density below which a layer's sparse products are taken where a recipe does not say: about where each back end
overtakes the dense ones (benchmarks/sparse_step.py). A constant, so that the choice does not hang on the machine."""
SHARE = 0.5
"""The kernel is chosen where at least this share of the weights lies in such layers."""


class Sparse:
    """Works for chains on the CPU whose masked weights are +0.0, under SGD, Adam and AdamW (see `why_not`)."""

    def __init__(self, job: Train, shop: Workshop, backend: Backend, below: float):
        from lotteryfw.engine.kernels.sparse_chain import SparseChain

        self._job = job
        self._feed = shop.feed_of(job)
        chain = chain_of(shop.network(job.model, self._feed))
        assert not isinstance(chain, str), chain
        self._names = [
            (f"{path}.weight", f"{path}.bias" if f"{path}.bias" in job.values else None)
            for path in chain
        ]
        optimizer = optimizer_of(job, shop)
        update = update_of(optimizer)
        assert update is not None, type(optimizer)
        self._rate = float(optimizer.param_groups[0]["lr"])
        self._chain = SparseChain(
            [job.values[weight] for weight, _ in self._names],
            [job.mask.get(weight) for weight, _ in self._names],
            [job.values[bias] if bias else None for _, bias in self._names],
            update,
            min(job.batch, self._feed.examples),
            below,
            loops_of(backend),
        )
        if job.optimizer_state is not None:
            self._load_state(job.optimizer_state)

    def update(self, step: int, factor: float) -> float:
        """One optimizer update; the batch's loss."""
        job = self._job
        chosen = self._feed.rows(step, job.batch, job.steps_per_epoch, job.order_seed)
        return self._chain.step(*self._feed.raw("train"), chosen, self._rate * factor)

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data."""
        from torch.nn.functional import cross_entropy

        inputs, labels = self._feed.raw(part)
        logits = self._chain.forward(inputs)
        return float(cross_entropy(logits, labels)), int((logits.argmax(1) == labels).sum()) / len(
            labels
        )

    def values(self) -> dict[str, Tensor]:
        """Every parameter now."""
        values: dict[str, Tensor] = {}
        for names, *tensors in zip(
            self._names, self._chain.weights(), self._chain.biases(), strict=True
        ):
            values |= {
                name: tensor
                for name, tensor in zip(names, tensors, strict=True)
                if name and tensor is not None
            }
        return values

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        state = enumerate(self._chain.state())
        return {f"{index}.{name}": tensor for index, said in state for name, tensor in said.items()}

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        weights = [values[weight] for weight, _ in self._names]
        self._chain.load(weights, [values[bias] if bias else None for _, bias in self._names])
        self._load_state(optimizer_state)

    def _load_state(self, tensors: Mapping[str, Tensor]) -> None:
        count = sum(1 for names in self._names for name in names if name)
        state: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for label, tensor in tensors.items():
            index, _, name = label.partition(".")
            state[int(index)][name] = tensor
        self._chain.load_state(state)


@cache
def backends() -> dict[Backend, str]:
    """The sets of loops that can run here, the faster one first, each with its name in a job: numba's version is in it,
    for what compiles the loops is part of what decides their bits. torch's is in every job."""
    numba: dict[Backend, str] = {"numba": f"numba{version('numba')}"} if find_spec("numba") else {}
    return numba | {"torch": "torch"}


def loops_of(backend: Backend) -> Loops:
    """The loops of a back end that is here."""
    if backend == "numba":
        from lotteryfw.engine.kernels import sparse_numba

        return sparse_numba
    from lotteryfw.engine.kernels import sparse_torch

    return sparse_torch


def why_not(job: Train, shop: Workshop) -> str | None:
    """Why a chain's job is not for this kernel, or None."""
    if job.augment:
        return "it takes images as they are stored, without augmentation"
    if shop.feed_of(job).is_normalised:
        return "it takes images as they are stored, without normalisation"
    optimizer = optimizer_of(job, shop)
    if update_of(optimizer) is None:
        return f"it has no {type(optimizer).__name__} with these options"
    moved = [name for name, mask in job.mask.items() if not is_plus_zero(job.values[name], ~mask)]
    if moved:
        return f"masked weights of {moved[0]} are frozen at other values than 0 (-0.0 is one)"
    return None


def is_worth_it(job: Train, below: float) -> bool:
    """Whether most of the weights lie in layers of less density than `below`."""
    sparse = sum(mask.numel() for mask in job.mask.values() if float(mask.float().mean()) < below)
    return sparse >= SHARE * sum(mask.numel() for mask in job.mask.values())


def optimizer_of(job: Train, shop: Workshop) -> torch.optim.Optimizer:
    """The job's optimizer over a parameter that is nobody's, to be asked for its options."""
    import torch

    built: torch.optim.Optimizer = shop.component(job.optimizer).build(
        [torch.zeros(1, requires_grad=True)]
    )
    return built


def update_of(optimizer: torch.optim.Optimizer) -> Update | None:
    """The rule and numbers of a torch optimizer, or None for one that the kernel does not have."""
    import torch

    from lotteryfw.engine.kernels.sparse_chain import Update

    (group,) = optimizer.param_groups
    if group.get("maximize") or group.get("amsgrad"):
        return None
    if type(optimizer) is torch.optim.SGD:
        named = {
            name: group[name] for name in ("weight_decay", "momentum", "dampening", "nesterov")
        }
        return Update("sgd", **named)
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        beta1, beta2 = group["betas"]
        named = {
            "weight_decay": group["weight_decay"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
        }
        return Update("adamw" if type(optimizer) is torch.optim.AdamW else "adam", **named)
    return None
