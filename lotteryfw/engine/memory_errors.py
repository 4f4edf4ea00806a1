"""The error of a job that does not fit into its device's memory, with advice. Does not import torch."""

from __future__ import annotations

import gc

from lotteryfw.api.errors import LotteryError
from lotteryfw.search.jobs import Job, Train


class DeviceMemoryError(LotteryError):
    """A job needs more memory than its device has left."""


def lack_of_memory(error: Exception) -> str:
    """Return the part of an error of torch's allocator that says how much was missing."""
    # torch goes on with advice for its own settings.
    sentences = str(error).partition("\n")[0].split(". ")
    return ". ".join(sentences[:2]).rstrip(".")


def memory_advice(job: Job, shortage: str) -> str:
    """Return the message for a job that does not fit alone, with what to change."""
    remedies = ["run fewer processes on the device (--jobs, --jobs-per-device)"]
    if isinstance(job, Train):
        remedies.append(f"set train.batch below {job.batch}")
        remedies.append(f"set train.accumulate above {job.accumulate}")
        if not job.activation_checkpointing:
            remedies.append("set engine.activation_checkpointing = true")
    if job.kind == "training" and getattr(job, "precision", "float32") == "float32":
        remedies.append('set train.precision = "bf16"')
    remedies.append("take a smaller network")
    kind = {"training": "a training", "evaluation": "an evaluation"}.get(job.kind, "a probe")
    return (
        f"{kind} of '{job.model.use}' does not fit into the device's memory ({shortage}); "
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}; `lotteryfw plan RECIPE --network` says what "
        "takes how much"
    )


def free_memory(device: str) -> None:
    """Return memory that nobody uses any more to the device."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
