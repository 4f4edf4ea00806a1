"""Everything beside a job that decides the bits of its result, but for the type of the processor."""

import os
from functools import cache
from importlib.metadata import version

_VARIABLES = {
    # the instructions of MKL; whether oneDNN may round float32 to fewer bits, under both its names
    "cpu": ("MKL_CBWR", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    # TF32 in all of NVIDIA's libraries, whatever torch asks of them
    "cuda": ("NVIDIA_TF32_OVERRIDE",),
}
"""By kind of device, the variables of the environment that change how float32 is computed."""


def numerics(device: str) -> dict[str, str]:
    """Return what beside a job decides the bits of its result; every key has it.

    That is: torch's version, the device, on the CPU that denormal numbers count as zeros, and the
    variables of the environment by which the libraries below torch compute differently. The type of
    the processor is left out: the runs of a study may share results of several machines.
    """
    settings = {"torch": _torch_version(), "device": device}
    if device == "cpu":
        settings["denormals"] = "zero"
    for name in _VARIABLES.get(device, ()):
        value = os.environ.get(name)
        if value:
            settings[name] = value
    return settings


@cache
def _torch_version() -> str:
    return version("torch")
