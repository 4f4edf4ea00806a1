"""The command line: each command is a few lines that call a function of the other packages."""

from lotteryfw.cli.main import main

__all__ = ["main"]
