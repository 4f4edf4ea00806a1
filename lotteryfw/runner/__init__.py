"""Runs studies: drives every cell's search, answers its jobs from the store or by training, records what comes out."""

from lotteryfw.runner.drive import Interrupted
from lotteryfw.runner.plan import Plan
from lotteryfw.runner.run import Desk, Levels, Listener, Run, default_data_folder, run, runs

__all__ = ["Desk", "Interrupted", "Levels", "Listener", "Plan", "Run", "default_data_folder", "run", "runs"]
