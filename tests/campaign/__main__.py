"""Run the fault campaign and print a table of attempts and failures.

    python -m tests.campaign --seed 0 --scale 0.1

Attempts depend on the seed and on their number alone, so a failure can be run again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .damage import harm_files, harm_posted_jobs, swap
from .disk import fill_disk
from .harness import Campaign, fast_folder
from .hostile import open_hostile_tickets
from .kills import interrupt, kill
from .mutate import mutate_recipes, mutate_sets

KINDS: dict[str, tuple[int, Callable[[Campaign, int], None], str]] = {
    "kills": (1000, kill, "runs that are killed by kill -9"),
    "flips": (5000, harm_files, "files that are damaged or deleted"),
    "posts": (200, harm_posted_jobs, "jobs that are damaged on their way to a worker"),
    "swaps": (600, swap, "pairs of objects, aliases or tickets that are exchanged"),
    "disks": (100, fill_disk, "runs on a disk that fills up"),
    "recipes": (20_000, mutate_recipes, "recipes with mistakes in them"),
    "sets": (8000, mutate_sets, "`--set` texts with mistakes in them"),
    "tickets": (5000, open_hostile_tickets, "hostile files, of tickets and of seed tickets each"),
    "signals": (300, interrupt, "runs that get SIGINT, SIGTERM or SIGHUP"),
}
"""By option: attempts of the whole campaign, what makes them, and what they are."""


def main() -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=summary)
    for name, (count, _, text) in KINDS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"{text} ({count})")
    parser.add_argument("--only", nargs="*", choices=list(KINDS), help="leave out the other kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of all the counts above")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        campaign = Campaign(Path(folder), arguments.seed)
        try:
            for name in arguments.only or KINDS:
                count = round(getattr(arguments, name) * arguments.scale)
                started = time.monotonic()
                KINDS[name][1](campaign, count)
                seconds = time.monotonic() - started
                print(f"{name}: {count:,} attempts, {seconds:,.0f} s", flush=True)
        finally:  # hours of attempts are not lost to an interrupt
            print(campaign.table())
    return 1 if any(row.failures for row in campaign.rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
