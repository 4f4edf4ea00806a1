"""The numbers that a network is computed in, and their order in memory.

Weights, their gradients and updates, the statistics of batch normalisation and losses are float32
in every precision: `torch.autocast` casts the factors of products and convolutions, and what lies
between them stays in the reduced format where that is safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import AuxiliaryOutputs
from lotteryfw.engine.compiled_forward import Forward, plain_forward
from lotteryfw.search.jobs import Evaluate, Job, Train

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The reduced precisions, by the names that recipes use."""
_SCALER = "scaler."


@contextmanager
def algorithms_of(job: Job) -> Iterator[None]:
    """Let torch choose its algorithms as a job says, and put its settings back at the end.

    On the CPU, denormal numbers count as zeros. By default cuDNN's algorithms stay as
    `configure_torch` has set them: repeatable ones, and no trials.
    """
    with _denormals_as_zeros() if job.device == "cpu" else nullcontext():
        # A probe ranks weights, and ranks must repeat.
        if getattr(job, "deterministic", True):
            yield
            return
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        cudnn.deterministic, cudnn.benchmark = False, True
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def _denormals_as_zeros() -> Iterator[None]:
    """Compute with zeros in the place of denormal numbers, in float32 those below 1.2e-38.

    Momentum and the averages of Adam decay to such numbers where hundreds of updates have no
    gradient, as at pixels that few images use. Beside a weight they are nothing, and some CPUs take
    several times as long for them. The setting is that of this thread.
    """
    # torch has no function that returns the setting
    was_set = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_set)


@dataclass(frozen=True)
class Arithmetic:
    """The precision and memory format that the forward pass of a network is computed in."""

    precision: str = "float32"
    memory_format: str = "contiguous"

    @classmethod
    def of(cls, job: Train | Evaluate) -> Arithmetic:
        """Return the arithmetic of a job."""
        return cls(job.precision, job.memory_format)

    def outputs(
        self, module: torch.nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor
    ) -> Tensor:
        """Return the outputs of a network with these parameters and buffers.

        They are float32 after a computation in reduced precision. Raises ContractError for a
        network that cannot be computed in the memory format.
        """
        outputs: Tensor = self._computed(module, tensors, inputs)
        return self._as_float32(outputs)

    def training_outputs(
        self,
        module: torch.nn.Module,
        tensors: Mapping[str, Tensor],
        inputs: Tensor,
        forward: Forward = plain_forward,
    ) -> Tensor | AuxiliaryOutputs:
        """Return what a network in training returns, as `outputs` does."""
        outputs: Tensor | AuxiliaryOutputs = self._computed(module, tensors, inputs, forward)
        if not isinstance(outputs, AuxiliaryOutputs):
            return self._as_float32(outputs)
        auxiliary = tuple(self._as_float32(head) for head in outputs.auxiliary)
        return AuxiliaryOutputs(self._as_float32(outputs.main), auxiliary, outputs.weight)

    def _as_float32(self, outputs: Tensor) -> Tensor:
        return outputs if self.precision == "float32" else outputs.float()

    def _computed(
        self,
        module: torch.nn.Module,
        tensors: Mapping[str, Tensor],
        inputs: Tensor,
        forward: Forward = plain_forward,
    ) -> Any:
        try:
            with self.autocast(inputs.device.type):
                return forward(module, tensors, self.laid_out(inputs))
        except RuntimeError as error:
            # torch's own message says nothing of the recipe's key that caused it.
            if self.memory_format == "channels_last" and "view size" in str(error):
                raise ContractError(
                    "the network takes a view of images that are in memory by channels_last; let "
                    "its forward use `reshape` or `flatten` in the place of `view`, or set "
                    'engine.memory_format = "contiguous"'
                ) from error
            raise

    def autocast(self, device_type: str) -> AbstractContextManager[object]:
        """Return the context that a forward pass is made in."""
        if self.precision == "float32":
            return nullcontext()
        # A network casts each weight once a pass, so that there is nothing to gain from a cache of
        # the casts; within a CUDA graph the cache would hold tensors of the recording.
        return torch.autocast(device_type, DTYPES[self.precision], cache_enabled=False)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """Return images or kernels of a convolution in the memory format, others as they are."""
        if self.memory_format == "channels_last" and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


class LossScaler:
    """Scales losses so that gradients in fp16 do not vanish, by `torch.amp.GradScaler`.

    An update whose gradients are not finite is left out, and the scale is halved.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: str):
        self._scaler = torch.amp.GradScaler(device)
        # The scaler makes its tensors at the first loss, which may be recorded or come after a
        # state is asked for.
        self._scaler.scale(torch.zeros((), device=device))
        # torch's fused SGD leaves its momentum uninitialised where it leaves out the first update.
        # So a dampening counts in the first update, too, which is undamped in other precisions.
        for group in optimizer.param_groups:
            if type(optimizer) is torch.optim.SGD and group["momentum"]:
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Add the scaled gradient to that of the parameters."""
        torch.autograd.backward(self._scaler.scale(loss), retain_graph=retain_graph)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimizer's step along the unscaled gradients, and adapt the scale."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Tensor]:
        """Return the scale and its age, named so that they can lie beside an optimizer's state."""
        state = self._scaler.state_dict()
        return {
            f"{_SCALER}scale": torch.tensor(state["scale"], dtype=torch.float64),
            f"{_SCALER}age": torch.tensor(state["_growth_tracker"], dtype=torch.int64),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a state that `state` returned."""
        state = self._scaler.state_dict()
        state["scale"] = float(tensors[f"{_SCALER}scale"])
        state["_growth_tracker"] = int(tensors[f"{_SCALER}age"])
        self._scaler.load_state_dict(state)


def without_scaler(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the optimizer's own of tensors among which a scaler's may be."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_SCALER)}


def has_scaler(tensors: Mapping[str, Tensor]) -> bool:
    """Return True where a scaler's state is among the tensors."""
    return f"{_SCALER}scale" in tensors
