"""A pretend accelerator: tensors that live on the device `pretend:0` and are computed by the CPU.

It shows, on a machine without a GPU, two things that only a GPU shows otherwise:

- a tensor of one dimension or more that was left on the CPU and meets one on the device raises, as it does on a GPU;
- every time that the host waits for the device, or sends it something, is counted by the line that did it (`syncs`).

    from support.pretend import Pretend, syncs
    with Pretend():
        ...                      # anything that runs on torch.device("pretend", 0)
    print(syncs.most_common(20))

It says nothing of speed, of memory, of CUDA graphs or of kernels that only exist on CUDA. Tried with
torch 2.14 and 2.15: autograd, functional_call, batch norm, convolutions, SGD and Adam work. It
uses `_setup_privateuseone_for_python_backend`, which torch calls experimental: keep it in tests, never in the package.
"""

from __future__ import annotations

import collections
import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
WATCHED = ("/lotteryfw/",)
"""Parts of file names: the innermost line in one of these is the one that is counted."""
syncs: collections.Counter[str] = collections.Counter()

_setup_privateuseone_for_python_backend(NAME)
# `torch.random.fork_rng`, which other tests call in this process, asks every accelerator for its stream; this one's
# draws come from the CPU's
_module = torch.get_device_module(NAME)
_module.get_rng_state = lambda *_: torch.get_rng_state()
_module.set_rng_state = lambda *_: None
_module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
_aten = torch.ops.aten
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
}
_WAITS = {
    _aten._local_scalar_dense.default, _aten.item.default, _aten.nonzero.default, _aten.masked_select.default,
    _aten.is_nonzero.default, _aten.equal.default,
}  # fmt: skip


class Elsewhere(torch.Tensor):
    """A tensor on the pretend device; `raw` is where it really is."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Elsewhere:
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip

    def __init__(self, raw: torch.Tensor):
        self.raw = raw

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _count("tolist")
        return self.raw.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a tensor on {NAME} to numpy: copy it to the CPU first")


class Pretend(TorchDispatchMode):
    """Makes factory functions and copies that name the pretend device work."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _line() -> str:
    for frame in reversed(traceback.extract_stack()[:-3]):
        if (
            any(part in frame.filename for part in WATCHED)
            and "site-packages" not in frame.filename
        ):
            return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.line}"
    return "elsewhere"


def _count(what: str) -> None:
    syncs[f"{what}: {_line()}"] += 1


def _raw(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return value.raw
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    device = kwargs.get("device")
    target = None if device is None else torch.device(device)
    if func is _aten._to_copy.default:
        made = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
        to = target or args[0].device
        if isinstance(args[0], Elsewhere) != (to.type == NAME):
            _count("to the host" if to.type == "cpu" else "to the device")
        return Elsewhere(made) if to.type == NAME else made
    if func is _aten.copy_.default:
        if isinstance(args[0], Elsewhere) != isinstance(args[1], Elsewhere):
            _count("copy_ between host and device")
        func(_raw(args[0]), _raw(args[1]), *args[2:])
        return args[0]
    if ours:
        if func in _WAITS:
            _count(str(func))
        if func is _aten.index.Tensor and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        ):
            _count("boolean index")
        for tensor in tensors:
            if isinstance(tensor, Elsewhere) or tensor.dim() == 0:
                continue
            if func not in _INDEXING or tensor is args[0]:
                raise RuntimeError(
                    f"{func}: expected all tensors on one device, found cpu and {NAME} at {_line()}"
                )
            _count("index on the host")
    made = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
    known = {id(tensor.raw): tensor for tensor in ours}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, Elsewhere):
            return value
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return tree_map(wrapped, made) if ours or (target is not None and target.type == NAME) else made


_library = torch.library.Library("aten", "IMPL")
_fallbacks = torch.library.Library("_", "IMPL")
# Within autocast every operation but those below is what it is without.
_fallbacks.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


def _cast_in_autocast(name: str) -> None:
    """Make an operation cast its factors within `torch.autocast`, as it does on the CPU and on CUDA."""
    operation = getattr(_aten, name).default
    autocast_key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value: Any) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(torch.get_autocast_dtype(NAME)) if is_float else value

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast_key):
            return operation(*map(cast, args), **kwargs)

    _library.impl(name, call, "AutocastPrivateUse1")


for _name in ("conv2d", "linear"):
    _cast_in_autocast(_name)

_tensor = torch.tensor


def _made(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    """`torch.tensor` calls the device's allocator where no mode can see it."""
    made = _tensor(data, **options)
    return made if device is None or torch.device(device).type != NAME else made.to(device)


torch.tensor = _made
