"""How a job is run: data feed, training step, evaluation, checkpoints, workers."""

from lotteryfw.engine.exits import exit_error
from lotteryfw.engine.kernels.calibrate import calibrate, sparse_advice
from lotteryfw.engine.kernels.choose import Chooser, engine_version
from lotteryfw.engine.kernels.lockstep import Alike, together
from lotteryfw.engine.perform import (
    ObjectLost,
    StoredOutcome,
    is_complete,
    is_stored,
    perform,
    perform_all,
)
from lotteryfw.engine.spool import DamagedJob, spool, unspool
from lotteryfw.engine.work import Stopped
from lotteryfw.engine.workshop import Workshop, load, pick_device, settle_process

__all__ = [
    "Alike",
    "Chooser",
    "DamagedJob",
    "ObjectLost",
    "Stopped",
    "StoredOutcome",
    "Workshop",
    "calibrate",
    "engine_version",
    "exit_error",
    "is_complete",
    "is_stored",
    "load",
    "perform",
    "perform_all",
    "pick_device",
    "settle_process",
    "sparse_advice",
    "spool",
    "together",
    "unspool",
]
