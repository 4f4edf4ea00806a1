"""Runs on a disk that fills up: a small tmpfs, which needs the right to mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .harness import Campaign, differences, lotteryfw, results, study


def fill_disk(campaign: Campaign, count: int) -> None:
    """Run a study on a disk too small for it, make room, and run it again."""
    kind = "full disk"
    for number in range(count):
        draws = campaign.draws(kind, number)
        name = draws.choice(["study", "slower"])
        kilobytes = draws.choice([8, 16, 32, *range(40, 400, 8)])
        right = campaign.results_of(name)
        disk = campaign.fresh() / "disk"
        disk.mkdir()
        if not _mount(disk, f"size={kilobytes}k"):
            campaign.skip(kind, "mounting a small tmpfs is not allowed here")
            return
        try:
            # the run folder on the same disk, or on one that has room
            run = (disk if draws.random() < 0.5 else disk.parent) / "run"
            arguments = (name, run, disk / "store", 1, draws.choice([0.05, 60.0]))
            done = campaign.run(study, *arguments)
            faults = done.faults()
            if done.status and "disk is full" not in done.err:
                faults.append(f"did not say that the disk is full: {done.err.strip()[:300]}")
            _mount(disk, "remount,size=64m")
            again = campaign.run(study, *arguments)
            faults += again.faults()
            if again.status:
                faults.append(f"the rerun failed: {again.err.strip()[:300]}")
            wrong = differences(results(run), right)
            if wrong:
                faults.append(f"the rerun gave other results: {', '.join(wrong[:3])}")
            words = ["store", "verify", "--store", str(disk / "store")]
            checked = campaign.run(lotteryfw, *words)
            if checked.status:
                faults.append(f"store verify: {checked.out.strip()[:300]}")
        finally:
            subprocess.run(["umount", str(disk)], check=False)
        campaign.count(kind, f"{number} ({name}, {kilobytes} KiB)", faults)


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
