"""How a job is run: data feed, training step, evaluation, checkpoints, workers."""

from lotteryfw.engine.kernels.choose import Chooser
from lotteryfw.engine.perform import Stopped, StoredOutcome, is_stored, perform, pick_up, post
from lotteryfw.engine.workshop import Workshop, load, pick_device, settle_process

__all__ = [
    "Chooser",
    "Stopped",
    "StoredOutcome",
    "Workshop",
    "is_stored",
    "load",
    "perform",
    "pick_device",
    "pick_up",
    "post",
    "settle_process",
]
