"""Studies as scripts, notebooks and the command line run them: with progress and a report."""

from lotteryfw.session.displays import JsonLines, Quiet, View, display
from lotteryfw.session.study import check, plan, run

__all__ = ["JsonLines", "Quiet", "View", "check", "display", "plan", "run"]
