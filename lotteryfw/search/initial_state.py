"""Step 0 of a cell: its network's layers and their first values, drawn from named streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.errors import ContractError, LotteryError, UsageError
from lotteryfw.api.kinds import Initialiser, Mask1Action, ModelFamily, Objective
from lotteryfw.api.layers import Layer, LayerInfo
from lotteryfw.api.limits import model_bytes
from lotteryfw.api.rng import Label, Stream, seed_of, stream
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.top_k import check_tensor, require_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class NetworkParts(Protocol):
    """The components that decide what a network starts from."""

    @property
    def model(self) -> ModelFamily: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def initialiser(self) -> Initialiser: ...
    @property
    def mask1(self) -> Mask1Action: ...


Specs = Mapping[str, Spec]
"""The components of a cell as jobs name them, by slot."""


@dataclass(frozen=True)
class InitialState:
    """The network at step 0: prunable layers in order, names of buffers, all values.

    `masks`: by layer, bool, where the network starts from a file that has any.
    """

    layers: tuple[LayerInfo, ...]
    buffers: frozenset[str]
    values: Mapping[str, Tensor] = field(repr=False)
    masks: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def initial_state(parts: NetworkParts, specs: Specs, facts: DatasetInfo, seed: int) -> InitialState:
    """Build the network for such data and draw its values.

    Raises ContractError where the model family builds no network that fits the data.
    """
    # Networks such as those with random features draw while they are built, and keep what they drew.
    with _seeded(seed, Stream.INITIALISATION, "as built"):
        with blame(specs["objective"], "output_size"):
            outputs = parts.objective.output_size(facts.shape, facts.classes)
        tried = f"for inputs {list(facts.shape)} and {outputs} outputs"
        with blame(specs["model"], "build", tried=tried):
            module = parts.model.build_for(facts, outputs)
    _check_module(specs["model"], module, facts, outputs)
    names = prunable_names(parts.model, specs["model"], module)
    parameters = dict(module.named_parameters())
    layers = tuple(
        LayerInfo(name, tuple(parameters[name].shape), is_output=name == names[-1])
        for name in names
    )
    buffers = frozenset(name for name, _ in module.named_buffers())
    return InitialState(layers, buffers, _initial_values(parts, specs, module, seed))


def prunable_names(model: ModelFamily, spec: Spec, module: nn.Module) -> list[str]:
    """Return the names of a network's prunable parameters, as its family lists them.

    Raises ContractError for anything but a list of different names of parameters.
    """
    with blame(spec, "prunable"):
        names: object = model.prunable(module)
    who = f"{describe(spec)}: prunable()"
    if not isinstance(names, list | tuple):
        raise ContractError(
            f"{who} returned {type(names).__name__}; it must return a list of the names of "
            "parameters"
        )
    parameters = {name for name, _ in module.named_parameters()}
    unknown = [repr(name) for name in names if not isinstance(name, str)]
    unknown += [name for name in names if isinstance(name, str) and name not in parameters]
    if unknown:
        raise ContractError(f"{who} named no parameter of the network: {', '.join(unknown)}")
    if not names:
        raise ContractError(f"{who} named no parameter")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ContractError(f"{who} named {', '.join(repeated)} more than once")
    return list(names)


def without_memory(
    model: ModelFamily, spec: Spec, info: DatasetInfo, outputs: int
) -> nn.Module | None:
    """Build a network on torch's `meta` device, whose tensors have shapes and no memory.

    None where it cannot be built there: a family may read values while it builds. Raises UsageError
    where a layer has more weights than torch can count.
    """
    import torch

    try:
        with _seeded(Stream.INITIALISATION, "counted"), torch.device("meta"), blame(spec, "build"):
            module: object = model.build_for(info, outputs)
    except LotteryError as error:
        if "overflow" in str(error).lower():
            raise UsageError(
                f"{describe(spec)} has a layer of more weights than can be counted: {error}"
            ) from None
        return None
    return module if isinstance(module, torch.nn.Module) else None


def require_memory(spec: Spec, module: nn.Module) -> None:
    """Raise UsageError where a network's parameters and buffers do not fit into the memory."""
    tensors = [*module.parameters(), *module.buffers()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    limit = model_bytes()
    if limit.exceeded_by(needed):
        raise UsageError(
            f"{describe(spec)} needs {needed:,} bytes for its parameters and buffers; "
            f"{limit.value:,} are present ({limit.remedy})"
        )


def refuse_oversized(parts: NetworkParts, specs: Specs, facts: DatasetInfo) -> None:
    """Raise UsageError for a network that does not fit into memory, without building it there."""
    with blame(specs["objective"], "output_size"):
        outputs = parts.objective.output_size(facts.shape, facts.classes)
    module = without_memory(parts.model, specs["model"], facts, outputs)
    if module is not None:
        require_memory(specs["model"], module)


def supermask_values(
    parts: NetworkParts, specs: Specs, initial: InitialState, seed: int, init_seed: int
) -> dict[str, Tensor]:
    """Return the values that masks are learned over.

    They are those that the mask-1 action makes of step 0 where nothing was removed. `seed` is the
    action's, `init_seed` that of weights drawn afresh.
    """
    import torch

    values = dict(initial.values)
    for info in initial.layers:
        drawn, whole = initial.values[info.name], torch.ones(info.shape, dtype=torch.bool)

        # The default binds this layer: a closure would see the last one of the loop.
        def resample(info: LayerInfo = info) -> Tensor:
            rng = stream(init_seed, Stream.REINITIALISE, 0, info.name)
            return draw_weight(parts.initialiser, specs["initialiser"], info, rng)

        rng = stream(seed, Stream.MASK1, 0, info.name)
        layer = Layer(info, drawn, drawn, drawn, drawn, whole, whole, rng, resample)
        with blame(specs["mask1"], "kept_values", layer):
            kept = parts.mask1.kept_values(layer)
        what = f"{describe(specs['mask1'])}: kept_values() on layer {info.name}"
        values[info.name] = check_tensor(kept, info.shape, what).float()
        require_finite(values[info.name], what, shown=[drawn])
    return values


def draw_weight(
    initialiser: Initialiser, spec: Spec, layer: LayerInfo, rng: torch.Generator
) -> Tensor:
    """Return weights that an initialiser draws for a layer: float32 [s].

    Raises ContractError for another shape or dtype, and for values that are not finite.
    """
    with blame(spec, "weight", layer):
        value = initialiser.weight(layer, rng)
    return _finite(value, layer.shape, f"{describe(spec)}: weight() on layer {layer.name}")


def _draw_bias(
    initialiser: Initialiser, spec: Spec, layer: LayerInfo, rng: torch.Generator
) -> Tensor:
    with blame(spec, "bias", layer):
        value = initialiser.bias(layer, rng)
    return _finite(value, layer.shape[:1], f"{describe(spec)}: bias() on layer {layer.name}")


def _finite(value: object, shape: tuple[int, ...], what: str) -> Tensor:
    """Return what an initialiser drew: float32. Raises ContractError for anything else."""
    drawn = check_tensor(value, shape, what).float()
    require_finite(drawn, what)
    return drawn


def _check_module(spec: Spec, module: object, facts: DatasetInfo, outputs: int) -> None:
    """Check that a module reads the data's inputs and has the outputs that the objective needs."""
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ContractError(
            f"{describe(spec)}: build() returned {type(module).__name__}, not an nn.Module"
        )
    # Trying it out must not leave it in evaluation mode.
    training = module.training
    with _seeded(Stream.INITIALISATION, "tried out"), torch.no_grad():
        try:
            # 0 is a token, too
            dtype = torch.int64 if facts.vocabulary else torch.float32
            logits = module.eval()(torch.zeros(2, *facts.shape, dtype=dtype))
        except Exception as error:
            what = f"cannot read inputs {list(facts.shape)}: {type(error).__name__}: {error}"
            raise ContractError(f"{describe(spec)} {what}") from error
        finally:
            module.train(training)
    shape, needed = list(getattr(logits, "shape", [])), [2, outputs]
    if shape != needed:
        raise ContractError(
            f"{describe(spec)} gives {shape} for 2 inputs, not {needed} as the objective asks"
        )


def _initial_values(
    parts: NetworkParts, specs: Specs, module: nn.Module, seed: int
) -> dict[str, Tensor]:
    """Draw Linear and Conv layers from the initialiser.

    All else (batch norm, …) is as its own `reset_parameters` makes it under a seed of its own.
    """
    from torch import nn

    # What a constructor drew depends on the order of construction; a seed of its own for each
    # module makes its values depend on its path alone.
    for path, part in module.named_modules():
        if hasattr(part, "reset_parameters"):
            with _seeded(seed, Stream.INITIALISATION, path):
                part.reset_parameters()
    # of a tied parameter only the first name
    names = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    values = {}
    for name, value in module.state_dict().items():
        if name in names:
            values[name] = value.detach().clone()
    for path, part in module.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        # The root module itself may be the layer, and has the empty path.
        prefix = f"{path}." if path else ""
        layer = LayerInfo(f"{prefix}weight", tuple(part.weight.shape))
        rng = stream(seed, Stream.INITIALISATION, layer.name)
        # A tied parameter is drawn once, under the name that the network lists it by.
        if layer.name in names:
            values[layer.name] = draw_weight(parts.initialiser, specs["initialiser"], layer, rng)
        bias = f"{prefix}bias"
        if part.bias is not None and bias in names:
            values[bias] = _draw_bias(parts.initialiser, specs["initialiser"], layer, rng)
    return values


@contextmanager
def _seeded(*labels: Label) -> Iterator[None]:
    """Put torch's global stream under a named seed for a while.

    Modules draw from it when they are built.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        # a module may be built on a GPU
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.manual_seed(seed_of(*labels))
        else:
            # `torch.manual_seed` also keeps a stack trace for each kind of accelerator that is not
            # in use: 0.4 ms, and memory that is never released
            torch.default_generator.manual_seed(seed_of(*labels))
        yield
