"""Step 0 of a cell: its network's layers and the values they start from, drawn from named streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lotteryfw.asking import Asking
from lotteryfw.errors import ContractError, LotteryError, UsageError
from lotteryfw.limits import model_bytes
from lotteryfw.rng import Label, seed_of, stream
from lotteryfw.views import Facts, Layer, Leaf

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Start:
    """The prunable layers in order, the names of buffers, and every parameter and buffer at step 0."""

    layers: tuple[Layer, ...] = ()
    buffers: frozenset[str] = frozenset()
    values: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def start_of(ask: Asking, facts: Facts, seed: int) -> Start:
    """Builds the cell's network for such data and draws its values. Raises ContractError for what is no network."""
    with _seeded(seed, "initialisation", "as built"):
        outputs = ask.component("objective", "outputs", facts.shape, facts.classes)
        module = ask.component("model", "build", facts.shape, outputs)
    _check(ask, module, facts, outputs)
    names = ask.component("model", "prunable", module)
    parameters = dict(module.named_parameters())
    unknown = [name for name in names if name not in parameters]
    if unknown or not names:
        what = f"named no parameter of the network: {', '.join(unknown)}" if unknown else "named no parameter"
        raise ContractError(f"{ask.who('model')}: prunable() {what}")
    layers = tuple(Layer(name, tuple(parameters[name].shape), is_output=name == names[-1]) for name in names)
    return Start(layers, frozenset(name for name, _ in module.named_buffers()), _values(ask, module, seed))


def without_memory(ask: Asking, shape: tuple[int, ...], outputs: int) -> nn.Module | None:
    """The cell's network on torch's `meta` device, whose tensors have shapes and no memory.

    None where it cannot be built there: a family may read values while it builds. Raises UsageError where a layer has
    more weights than torch can count.
    """
    import torch

    try:
        with _seeded("initialisation", "counted"), torch.device("meta"):
            module = ask.component("model", "build", shape, outputs)
    except LotteryError as error:
        if "overflow" in str(error).lower():
            raise UsageError(f"{ask.who('model')} has a layer of more weights than can be counted: {error}") from None
        return None
    return module if isinstance(module, torch.nn.Module) else None


def require_memory(ask: Asking, module: nn.Module) -> None:
    """Raise UsageError where the parameters and buffers of a network are more than the machine's memory."""
    tensors = [*module.parameters(), *module.buffers()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    limit = model_bytes()
    if limit.exceeded_by(needed):
        raise UsageError(
            f"{ask.who('model')} needs {needed:,} bytes for its parameters and buffers; {limit.value:,} are present "
            f"({limit.remedy})"
        )


def refuse_oversized(ask: Asking, facts: Facts) -> None:
    """Raise UsageError for a network that does not fit into memory, without building it there."""
    outputs = ask.component("objective", "outputs", facts.shape, facts.classes)
    module = without_memory(ask, facts.shape, outputs)
    if module is not None:
        require_memory(ask, module)


def masked_values(ask: Asking, start: Start, seed: int) -> dict[str, Tensor]:
    """The values of step 0 as the mask-1 action makes them of a network that nothing was removed from: what masks are
    learned over."""
    import torch

    values = dict(start.values)
    for layer in start.layers:
        drawn, whole = start.values[layer.name], torch.ones(layer.shape, dtype=torch.bool)
        leaf = Leaf(
            layer, drawn, drawn, drawn, drawn, whole, whole, stream(seed, "mask1", 0, layer.name),
            lambda layer=layer: ask.weight(layer, stream(seed, "reinitialise", 0, layer.name)),  # type: ignore[misc]
        )  # fmt: skip
        values[layer.name] = ask.leaf("mask1", "alive", leaf).float()
    return values


def _check(ask: Asking, module: object, facts: Facts, outputs: int) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ContractError(f"{ask.who('model')}: build() returned {type(module).__name__}, not an nn.Module")
    training = module.training
    with _seeded("initialisation", "tried out"), torch.no_grad():
        try:
            logits = module.eval()(torch.zeros(2, *facts.shape))
        except Exception as error:
            what = f"cannot read inputs {list(facts.shape)}: {type(error).__name__}: {error}"
            raise ContractError(f"{ask.who('model')} {what}") from error
        finally:
            module.train(training)
    shape, needed = list(getattr(logits, "shape", [])), [2, outputs]
    if shape != needed:
        raise ContractError(f"{ask.who('model')} gives {shape} for 2 inputs, not {needed} as the objective asks")


def _values(ask: Asking, module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Linear and Conv layers from the initialiser, all else (batch norm, …) as its own `reset_parameters` leaves it
    under a seed of its own."""
    from torch import nn

    for path, part in module.named_modules():
        if hasattr(part, "reset_parameters"):
            with _seeded(seed, "initialisation", path):
                part.reset_parameters()
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}  # a tied weight's first name
    values = {name: value.detach().clone() for name, value in module.state_dict().items() if name in own}
    for path, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            prefix = f"{path}." if path else ""
            layer = Layer(f"{prefix}weight", tuple(part.weight.shape))
            if layer.name not in own:
                continue
            rng = stream(seed, "initialisation", layer.name)
            values[layer.name] = ask.draw("weight", layer, layer.shape, rng)
            if part.bias is not None:
                values[f"{prefix}bias"] = ask.draw("bias", layer, layer.shape[:1], rng)
    return values


@contextmanager
def _seeded(*labels: Label) -> Iterator[None]:
    """torch's global stream, which modules draw from when they are built, under a named seed for a while."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*labels))
        yield
