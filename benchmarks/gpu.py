"""What the engine does on a GPU: whether everything runs there, how fast, and how near to what the device can do.

    python benchmarks/gpu.py [--json gpu.json] [--only lockstep,convs] [--tiny]

Needs one CUDA device, under 9 minutes, no network and no data: images are synthetic, digits the embedded ones. Works
from a checkout that is not installed (PYTHONPATH). Without CUDA, or with `--tiny`, the same code runs at a tiny size on
the CPU; its figures then mean nothing. Rows are printed and written to the JSON file as they come, and as one table at
the end. On a GPU every part has a process of its own: one that fails, hangs or takes the device down with it prints its
traceback, and the others go on.

Parts: device (what it can do at most), captured (recorded updates: their bits, their speed for conv nets), lockstep,
convs (steps a second), precision (bf16 and fp16: their results, steps a second), ensemble (eight conv nets as one),
compiled (`engine.compile`: its results, its gain), memory (the bytes that the plan counts, and the peak that is
measured), suite (does everything run), host_waits (launches, copies and waits of a step), parity (the CPU's results
against the device's), edge_popup, study (wall time). What a change to the kernels needs, in under 4 minutes:

    python benchmarks/gpu.py --json gpu.json --only device,captured,lockstep,suite
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_parts.checkout import describe_packages
from gpu_parts.report import Report

PARTS = {
    "device": 40, "captured": 90, "lockstep": 80, "convs": 150, "precision": 100, "ensemble": 40, "memory": 40,
    "compiled": 150, "suite": 150,
    "host_waits": 80, "parity": 80, "edge_popup": 60, "study": 110,
}  # fmt: skip
"""How many seconds each part may take before it is given up."""
SECONDS = 530
"""How long all of them may take; what is left out then has a row that says so."""
START = 25
"""Seconds that a process may take beside its part, to import torch and to find the device."""


def parts_of(text: str) -> list[str]:
    """Parts named with commas, in their own order."""
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no part '{unknown[0]}'; parts: {', '.join(PARTS)}"
        )
    return [name for name in PARTS if name in names]


def main() -> int:
    """Run the parts; 1 where a row says FAILED."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    parser.add_argument(
        "--only", type=parts_of, default=list(PARTS), metavar="NAME[,NAME]", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--tiny", action="store_true", help="the same code at a tiny size on the CPU"
    )
    parser.add_argument("--as-part", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        describe_packages(folder / "metadata")
        import torch

        from lotteryfw.engine import configure_torch

        configure_torch()
        torch.manual_seed(0)
        tiny = options.tiny or not torch.cuda.is_available()
        path = options.json or folder / "rows.json"
        if not options.as_part:
            path.unlink(missing_ok=True)
        report = Report("cpu" if tiny else "cuda", tiny, folder, path)

        if tiny or options.as_part:
            for part in options.only:
                run_part(report, part)
        else:
            run_in_processes(report, options.only)
        if options.as_part:
            return 0
        failed = print_table(report)
    return 1 if failed else 0


def run_part(report: Report, part: str) -> None:
    """Run one part, and record how long it took."""
    report.part = part
    started = time.perf_counter()
    with report.attempt("the whole part", PARTS[part]):
        import_module(f"gpu_parts.{part}").run(report)
    report.add("time", time.perf_counter() - started, "s")


def run_in_processes(report: Report, parts: list[str]) -> None:
    """Run every part in a process of its own, whose rows come through the JSON file."""
    end = time.monotonic() + SECONDS
    for part in parts:
        left = end - time.monotonic()
        problem = "no time was left for it" if left < START else ""
        if not problem:
            command = [
                sys.executable,
                __file__,
                "--as-part",
                "--only",
                part,
                "--json",
                str(report.path),
            ]
            try:
                done = subprocess.run(command, timeout=min(left, PARTS[part] + START))
                problem = (
                    f"its process ended with code {done.returncode}" if done.returncode else ""
                )
            except subprocess.TimeoutExpired:
                problem = "its process had to be killed"
            report.read()
        if problem:
            report.part = part
            report.add("the whole part", "FAILED", note=problem)


def print_table(report: Report) -> int:
    """Print all rows but those that passed, which are counted; the number of those that failed."""
    print(f"\n{'part':<10} {'what':<44} {'value':>9}")
    passed = failed = 0
    seconds = 0.0
    for row in report.rows:
        passed += row.value == "pass"
        failed += row.value == "FAILED"
        seconds += float(row.value) if row.what == "time" else 0.0
        if row.value != "pass":
            print(row)
    print(f"{len(report.rows)} rows, {passed} pass, {failed} FAILED, {seconds:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
