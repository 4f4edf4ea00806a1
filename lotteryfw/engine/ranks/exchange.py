"""The ranks that train one network together: what they exchange, by `torch.distributed`.

`DistributedDataParallel` averages gradients by hooks on a module's own parameters. Kernels train
tensors outside of the module, which `functional_call` puts into it for one forward pass, so that
those hooks would never be called. The gradients are added up by one `all_reduce` instead, after the
backward pass. It does not overlap with the backward pass, as that of `DistributedDataParallel`
does, and takes the memory of one more gradient.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lotteryfw.api.errors import LotteryError
from lotteryfw.engine.batch_parts import bounds

BACKENDS: Mapping[str, str] = {"cpu": "gloo", "cuda": "nccl"}
"""By the type of the device, the library that exchanges tensors."""
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}
_TIMEOUT = timedelta(minutes=10)
"""Longer than any rank waits for the slowest one in a step. A rank that died or hangs is noticed by
its pipe (see `RankProcesses`), long before this."""


class LostRank(Exception):
    """An exchange failed, mostly since another rank is gone."""


class Ranks:
    """All ranks of one training, as one of them sees them. The first is rank 0."""

    def __init__(self, rank: int, size: int, device: str, rendezvous: Path):
        """Join the others, which meet by the file `rendezvous`. Raises LostRank, LotteryError."""
        if dist.is_initialized():
            raise LotteryError(
                "engine.devices: this process is a rank of a torch.distributed group already; "
                "start the run in a process of its own"
            )
        self.rank = rank
        self.size = size
        # torch.distributed has no such name in a torch that is built without it.
        meeting = dist.FileStore(str(rendezvous), size)  # type: ignore[attr-defined]
        with _as_lost_rank(), _on_loopback():
            dist.init_process_group(
                BACKENDS[device],
                store=meeting,
                rank=rank,
                world_size=size,
                timeout=_TIMEOUT,
            )

    def close(self) -> None:
        """Leave the group, whose other ranks may be gone. Raises LostRank."""
        if not dist.is_initialized():
            return
        self.abort()
        with _as_lost_rank():
            if dist.is_initialized():
                dist.destroy_process_group()

    def abort(self) -> None:
        """Break off an exchange that waits for another rank, from any thread.

        gloo notices by itself that a rank is gone, nccl does not.
        """
        if dist.is_initialized() and dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()

    def share(self, examples: int) -> slice:
        """Return the rows of a batch that this rank computes."""
        return bounds(examples, self.size, self.rank)

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks, which has the same bits on each."""
        with _as_lost_rank():
            dist.all_reduce(tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all ranks, [ranks, *shape]."""
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        with _as_lost_rank():
            dist.all_gather(tensors, tensor)
        return torch.stack(tensors)

    def differing(self, tensors: Sequence[Tensor]) -> list[int]:
        """Return the ranks on which these tensors have other bits than on rank 0."""
        checksums = self.gather(_checksum(tensors)).tolist()
        return [rank for rank, checksum in enumerate(checksums) if checksum != checksums[0]]


class StepExchange:
    """The sums of a step over all ranks, in one flat tensor: of gradients and of the loss.

    Buffers that are numbers, such as running statistics, become those of rank 0, which evaluates
    and saves them.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[Tensor], buffers: Sequence[Tensor]):
        self._ranks = ranks
        self._parameters = parameters
        self._buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        exchanged = [*parameters, *self._buffers]
        dtype = torch.float32
        for tensor in exchanged:
            dtype = torch.promote_types(dtype, tensor.dtype)
        sizes = [tensor.numel() for tensor in exchanged]
        self._flat = torch.zeros(
            sum(sizes) + len(parameters) + 1, dtype=dtype, device=parameters[0].device
        )
        parts = torch.split(self._flat, [*sizes, len(parameters), 1])
        *views, self._counts, loss = parts
        self._loss = loss.view(())
        self._views = []
        for tensor, view in zip(exchanged, views, strict=True):
            self._views.append(view.view(tensor.shape))

    @torch.no_grad()
    def add_up(self, loss: Tensor) -> Tensor:
        """Replace the gradients by their sums over all ranks, and return that of the loss.

        The next call overwrites it.
        """
        self._flat.zero_()
        gradients = self._views[: len(self._parameters)]
        buffers = self._views[len(self._parameters) :]
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                gradients[number].copy_(parameter.grad)
                self._counts[number] = 1
        # The others add zeros to those of rank 0.
        if self._ranks.rank == 0:
            for buffer, view in zip(self._buffers, buffers, strict=True):
                view.copy_(buffer)
        self._loss.copy_(loss)

        self._ranks.add_up(self._flat)

        for number, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                # A parameter that no rank has used has no gradient, which is not a gradient of 0:
                # momentum and weight decay leave it alone.
                if not bool(self._counts[number]):
                    continue
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(gradients[number])
        for buffer, view in zip(self._buffers, buffers, strict=True):
            buffer.copy_(view)
        return self._loss


def _checksum(tensors: Sequence[Tensor]) -> Tensor:
    """Return a number, [1] int64, that rounding anywhere in the tensors changes."""
    sums = []
    for tensor in tensors:
        size = tensor.element_size()
        integers = torch.int32 if size % 4 == 0 else torch.uint8
        bits = tensor.detach().contiguous().reshape(-1).view(integers)
        sums.append(bits.sum(dtype=torch.int64))
    # Running sums, so that tensors that changed places show.
    running: Tensor = torch.stack(sums).cumsum(0)
    return running.sum().reshape(1)


@contextmanager
def _as_lost_rank() -> Iterator[None]:
    try:
        yield
    # gloo and nccl raise it, and classes below it, for a peer that is gone and for a timeout.
    except RuntimeError as error:
        raise LostRank(str(error)) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let gloo listen to this machine alone: by default, others can connect to its ports."""
    name, interface = "GLOO_SOCKET_IFNAME", _LOOPBACK.get(sys.platform)
    if interface is None or name in os.environ:
        yield
        return
    os.environ[name] = interface
    try:
        yield
    finally:
        del os.environ[name]
