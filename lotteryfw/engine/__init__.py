"""The engine: it runs jobs, with data on the device, kernels, checkpoints and worker processes.

None of the modules that are imported here imports torch, since a plan needs names of them.
"""

from lotteryfw.engine.component_errors import exit_error
from lotteryfw.engine.dataset_loading import load_dataset
from lotteryfw.engine.execute import execute
from lotteryfw.engine.gpus import GpuError, pick_device, use_gpu, visible_gpus
from lotteryfw.engine.kernels.dispatch import (
    GroupKey,
    KernelDispatcher,
    engine_version,
    group_key,
)
from lotteryfw.engine.outcomes import (
    ObjectLost,
    Stopped,
    StoredOutcome,
    is_complete,
    is_stored,
)
from lotteryfw.engine.runtime import EngineContext, configure_torch, describe_bf16
from lotteryfw.engine.spool import DamagedJob, spool, unspool

__all__ = [
    "DamagedJob",
    "EngineContext",
    "GpuError",
    "GroupKey",
    "KernelDispatcher",
    "ObjectLost",
    "Stopped",
    "StoredOutcome",
    "configure_torch",
    "describe_bf16",
    "engine_version",
    "execute",
    "exit_error",
    "group_key",
    "is_complete",
    "is_stored",
    "load_dataset",
    "pick_device",
    "spool",
    "unspool",
    "use_gpu",
    "visible_gpus",
]
