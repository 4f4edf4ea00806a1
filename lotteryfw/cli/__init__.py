"""The command line: each command is a few lines that call a function anyone can call from Python."""

from lotteryfw.cli.main import main

__all__ = ["main"]
