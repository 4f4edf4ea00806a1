"""The GPUs of this machine that a run uses, and the errors that mean that one of them failed.

A worker process sees one GPU alone: `CUDA_VISIBLE_DEVICES` names it. For torch it is then the
device "cuda", as every GPU is for keys. Importing this module does not import torch.
"""

from __future__ import annotations

import os

from lotteryfw.api.errors import LotteryError, UsageError, nearest

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable of CUDA that names the GPUs of a process, by index or by UUID, with commas."""


def pick_device(name: str) -> str:
    """Return the kind of the device that a name stands for: "cpu" or "cuda".

    The names are "auto", "cpu", "cuda" and "cuda:N". Raises UsageError without that device.
    """
    if name == "cpu":
        return name
    kind, _, index = name.partition(":")
    if name != "auto" and (kind != "cuda" or (index and not index.isdecimal()) or name == "cuda:"):
        names = ["auto", "cpu", "cuda", "cuda:0"]
        raise UsageError(f"no device is called '{name}'; {nearest(name, names)}")
    count = _count_gpus()
    if name == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise UsageError(
            f"device '{name}': this torch sees no CUDA device; use --device cpu or auto"
        )
    if index and int(index) >= count:
        last = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0 alone"
        raise UsageError(f"device '{name}': this torch sees {last}")
    return kind


def visible_gpus(name: str) -> tuple[str, ...]:
    """Return the GPUs that a device's name stands for, as `CUDA_VISIBLE_DEVICES` names them.

    "auto" and "cuda" stand for all that this process may use, "cuda:N" for one of these; there are
    none on a CPU. `name` is one that `pick_device` has accepted.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cuda"):
        return ()
    count = _count_gpus()
    # What limits this process limits its workers: the N-th of its GPUs is the N-th of that list.
    named = [part.strip() for part in os.environ.get(VISIBLE, "").split(",") if part.strip()]
    gpus = named[:count] if len(named) >= count else list(map(str, range(count)))
    return (gpus[int(index)],) if index else tuple(gpus)


def use_gpu(name: str) -> None:
    """Make the GPU that "cuda:N" names the one that this process computes on."""
    kind, _, index = name.partition(":")
    if kind == "cuda" and index:
        import torch

        torch.cuda.set_device(int(index))


class GpuError(LotteryError):
    """A GPU, or this process's use of it, broke while a job ran."""


def cuda_error(error: BaseException | None) -> str | None:
    """Return the text of the error of CUDA that an error is, or came from; None for any other.

    The process can compute nothing more on its GPU then. A lack of memory is none of these.
    """
    while error is not None:
        text = str(error)
        is_lack_of_memory = "out of memory" in text
        if isinstance(error, RuntimeError) and "CUDA error" in text and not is_lack_of_memory:
            # The lines after the first one tell how to debug a kernel of one's own.
            return text.partition("\n")[0]
        error = error.__cause__
    return None


def would_recur(text: str) -> bool:
    """Return whether an error of CUDA would come again on any other GPU."""
    # A label or an index outside its range, mostly.
    return "device-side assert" in text


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
