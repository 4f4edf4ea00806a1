"""Runs studies: every cell's search, its jobs from the store or by training, and the results."""

from lotteryfw.runner.context import StudyContext, default_data_folder
from lotteryfw.runner.exports import export
from lotteryfw.runner.network_table import NetworkTable
from lotteryfw.runner.plan import Plan
from lotteryfw.runner.reporter import Listener
from lotteryfw.runner.results import Run, runs
from lotteryfw.runner.rows import CurveRow, FindingRow, Rows, TicketRow
from lotteryfw.runner.scheduler import Interrupted
from lotteryfw.runner.study import cores, likely_device, run_study

__all__ = [
    "CurveRow",
    "FindingRow",
    "Interrupted",
    "Listener",
    "NetworkTable",
    "Plan",
    "Rows",
    "Run",
    "StudyContext",
    "TicketRow",
    "cores",
    "default_data_folder",
    "export",
    "likely_device",
    "run_study",
    "runs",
]
