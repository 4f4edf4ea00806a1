"""Runs that a signal ends at a random moment, and that are run again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import tomli_w

from .harness import STUDIES, Campaign, Command, differences, lotteryfw, results, study

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORKERS_EVERY = 8
"""One attempt in so many uses two worker processes, which take seconds to start."""


def kill(campaign: Campaign, count: int) -> None:
    """Kill runs and their workers one to three times, then let the same command finish."""
    for number in range(count):
        draws = campaign.draws("kill", number)
        jobs = 2 if number % _WORKERS_EVERY == _WORKERS_EVERY - 1 else 1
        name = draws.choice(["study", "study", "study", "slower"])
        every = draws.choice([0.02, 0.2, 60.0])
        moments = [draws.random() for _ in range(draws.choice([1, 1, 2, 3]))]
        right = campaign.results_of(name)
        attempt = campaign.fresh()
        arguments = (name, attempt / "run", attempt / "store", jobs, every)
        longest = campaign.seconds[name] + (5.0 if jobs > 1 else 0.0)  # for workers to start

        faults = []
        for moment in moments:
            command = Command(campaign.folder / "command", study, *arguments)
            command.wait_until_started()
            time.sleep(moment * longest)
            faults += command.kill().faults(killed=True)
        faults += _finish(campaign, attempt, name, right)
        text = f"{name}, {jobs} jobs, checkpoints every {every} s, at {moments}"
        campaign.count("kill -9", f"{number} ({text})", faults)


def interrupt(campaign: Campaign, count: int) -> None:
    """Send a signal to the command line at a random moment, then run the study again."""
    recipes = {}
    for name in ("study", "slower"):
        recipes[name] = campaign.folder / f"{name}.toml"
        recipes[name].write_bytes(tomli_w.dumps(STUDIES[name]).encode())

    for number in range(count):
        draws = campaign.draws("signal", number)
        jobs = 2 if number % _WORKERS_EVERY == _WORKERS_EVERY - 1 else 1
        name = draws.choice(["study", "slower"])
        sent = SIGNALS[number % len(SIGNALS)]
        right = campaign.results_of(name)
        attempt = campaign.fresh()
        words = ["recipe", str(recipes[name]), "--quiet", "--device", "cpu", "--jobs", str(jobs)]
        words += ["--out", str(attempt / "run"), "--store", str(attempt / "store")]
        command = Command(campaign.folder / "command", lotteryfw, *words)
        command.wait_until_started()
        time.sleep(draws.random() * (2.0 + 3.0 * jobs))
        command.send(sent)
        done = command.wait(leave_workers=True)

        # a signal that comes before the handlers are set, or has none, ends the process
        ended_by_it = done.status == -sent
        was_asked_to_end = ended_by_it or done.status in (128 + sent, 130)
        faults = done.faults(killed=was_asked_to_end)
        if not was_asked_to_end and done.status not in (0, 1):
            faults.append(f"ended with status {done.status}")
        if command.has_workers(seconds=10.0):
            faults.append("left worker processes behind")
        command.send(signal.SIGKILL, group=True)
        faults += _finish(campaign, attempt, name, right)
        campaign.count(sent.name, f"{number} ({name}, {jobs} jobs)", faults)


def _finish(campaign: Campaign, attempt: Path, name: str, right: dict[str, bytes]) -> list[str]:
    """Run the study to its end; return what is wrong with its results and with the store."""
    done = campaign.run(study, name, attempt / "run", attempt / "store")
    faults = done.faults()
    if done.status:
        faults.append(f"the rerun failed: {done.err.strip()[:300]}")
    wrong = differences(results(attempt / "run"), right)
    if wrong:
        faults.append(f"the rerun gave other results: {', '.join(wrong[:3])}")
    checked = campaign.run(lotteryfw, "store", "verify", "--store", str(attempt / "store"))
    if checked.status:
        faults.append(f"store verify: {checked.out.strip()[:300]} {checked.err.strip()[:300]}")
    return faults
