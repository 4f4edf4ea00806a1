"""Runs studies: drives every cell's search, answers its jobs from the store or by training, records what comes out."""

from lotteryfw.runner.desk import Desk, default_data_folder
from lotteryfw.runner.drive import Interrupted
from lotteryfw.runner.exports import export
from lotteryfw.runner.plan import Plan
from lotteryfw.runner.results import Levels, Run, runs
from lotteryfw.runner.study import Listener, cores, run

__all__ = [
    "Desk",
    "Interrupted",
    "Levels",
    "Listener",
    "Plan",
    "Run",
    "cores",
    "default_data_folder",
    "export",
    "run",
    "runs",
]
