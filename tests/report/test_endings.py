"""What a report says of cells that failed or have not ended."""

from __future__ import annotations

from pathlib import Path

from support.fake_runs import EVIL, A, fake_run, row

from lotteryfw.report import endings
from lotteryfw.report.html.page import write_page


def test_of_many_failed_cells_the_first_are_named(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", [row(A, 0.5, seed=0)])
    assert endings(run.path) == []
    manifest = run.read_manifest()
    names = [f"cell-{number}" for number in range(5)]
    manifest["cells"] |= dict.fromkeys(names, "failed")
    manifest["failures"] = {
        # the traceback of the first was deleted by a later run
        "cell-0": {"reason": f"{EVIL}\nmore of it", "traceback": "errors/001.txt"},
        "cell-1": {"reason": "no luck", "traceback": "errors/002.txt"},
        "cell-2": "damaged",
    }
    run.write_manifest(manifest)
    run.write_error("002", "the traceback")
    assert endings(run.path) == [
        "5 of 6 cells failed:",
        "  cell-0",
        f"    {EVIL}",
        f"  cell-1 (traceback: {run.path}/errors/002.txt)",
        "    no luck",
        "  cell-2",
        "  and 2 more cells",
    ]
    page = write_page(run).read_text()
    assert EVIL not in page
    assert page.count("<strong>cell-") == 5
