"""Commands about recipes and runs: what they print, where, and their exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import PLUGIN, QUICK, cli, command, environment, refused
from support.paths import ROOT

from lotteryfw.store import RunFolder


def test_a_run_from_recipe_to_figure_and_again_from_the_store(here: Path) -> None:
    first = cli(here, "recipe", "tiny.toml", "--jobs", "1")
    assert first.returncode == 0, first.stderr
    folder = here / first.stdout.splitlines()[-1].strip()
    assert folder.parent == here / "runs"
    for name in (
        "recipe.toml",
        "resolved.toml",
        "manifest.json",
        "levels.csv",
        "curves.jsonl",
        "events.jsonl",
    ):
        assert (folder / name).is_file()
    assert list(folder.rglob("*.png"))
    assert list(folder.rglob("*.svg"))
    assert "100" in first.stdout
    assert "±" in first.stdout
    levels = (folder / "levels.csv").read_bytes()
    again = cli(here, "recipe", "tiny.toml", "--json")
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["stored"] for line in lines if line.get("event") == "job_finished"} == {True}
    assert lines[-1]["cells"] == {"tiny/seed=0": "done", "tiny/seed=1": "done"}
    assert (folder / "levels.csv").read_bytes() == levels
    quiet = cli(here, "recipe", "tiny.toml", "--quiet")
    assert quiet.stdout.strip() == str(folder.relative_to(here))
    assert not quiet.stderr
    assert "6; 2 done" in cli(here, "runs").stdout


def test_plan_and_dry_run_train_nothing(here: Path) -> None:
    for words in (("plan", "tiny.toml"), ("recipe", "tiny.toml", "--dry-run")):
        message = cli(here, *words)
        assert message.returncode == 0
        assert "jobs asked for" in message.stdout
        assert not (here / "store" / "objects").exists()
    found = json.loads(cli(here, "plan", "tiny.toml", "--json", "--set", "seeds=[0,1,2]").stdout)
    assert (found["cells"], found["asked"], found["unique"], found["steps"]) == (3, 9, 9, 360)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("batch = 16", "bacth = 16"), ["tiny.toml", "train.bacth", "did you mean 'batch'"]),
        (('use = "imp"', 'use = "impp"'), ["search", "'impp'", "'imp'"]),
        (("lr = 0.1", "lr = -1.0"), ["train.optimizer.lr", "-1"]),
        (("levels = 2", 'levels = "two"'), ["search.levels", "an integer", "two"]),
        (("[train]", '[evaluate]\npoints = 3\nevery = "5it"\n[train]'), ["points", "every"]),
        (('length = "40it"', 'length = "40 moons"'), ["train.length", "500it", "2ep"]),
        (("levels = 2 }", "levels = 2 "), ["tiny.toml", "line"]),
        (
            ("[train]", '[scope]\nuse = "layerwise"\nrate = 1.5\n[train]'),
            ["scope.rate", "1.5", "< 1"],
        ),
        (("[train]", '[scope]\nuse = "layerwise"\nrate = 0.9\n[train]'), []),
        (("levels = 2", "levels = 40"), []),
    ],
)
def test_mistakes_in_a_recipe(here: Path, change: tuple[str, str], parts: list[str]) -> None:
    text = (here / "tiny.toml").read_text()
    assert change[0] in text
    (here / "tiny.toml").write_text(text.replace(*change))
    if parts:
        message = refused(here, "recipe", "tiny.toml")
        for part in parts:
            assert part in message


def test_all_faults_are_told_at_once(here: Path) -> None:
    text = (
        (here / "tiny.toml")
        .read_text()
        .replace("batch = 16", "batch = 0")
        .replace('"mlp"', '"mpl"')
    )
    (here / "tiny.toml").write_text(text + "\nmomentum = 1\n")
    message = refused(here, "check", "tiny.toml")
    assert "3 faults" in message
    for part in ("train.batch", "'mpl'", "train.momentum"):
        assert part in message


def test_other_mistakes(here: Path) -> None:
    assert "nowhere.toml" in refused(here, "recipe", "nowhere.toml")
    assert "no kind 'criterium'" in refused(here, "list", "criterium")
    assert "large_final" in refused(here, "show", "large_finale")
    assert "quick" in refused(
        here, "recipe", str(ROOT / "recipes" / "deconstruct.toml"), "--profile", "quik"
    )
    message = refused(
        here, "recipe", str(ROOT / "recipes" / "deconstruct.toml"), "--profile", "quick"
    )
    assert str(here / "data") in message
    assert "lotteryfw data fetch mnist" in message
    assert "'cpu'" in refused(here, "recipe", "tiny.toml", "--device", "tpu")
    assert "no runs here" in refused(here, "runs", "elsewhere")
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("mine")
    assert "thesis" not in refused(here, "recipe", "tiny.toml", "--out", "full")
    (here / "file").write_text("a file")
    assert "file" in refused(here, "recipe", "tiny.toml", "--out", "file/run")


def test_a_full_disk_ends_clearly_and_loses_nothing(here: Path) -> None:
    """The store sits on a file system of a few hundred kilobytes (a tmpfs, which needs the right to mount)."""
    small = here / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        done = cli(
            here,
            "recipe",
            "tiny.toml",
            "--jobs",
            "1",
            "--set",
            "search.levels=20",
            "--store",
            str(small / "s"),
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "disk is full" in done.stderr
        kept = list((small / "s" / "objects").glob("*/*"))
        assert kept
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        again = cli(here, "recipe", "tiny.toml", "--jobs", "1", "--json", "--set", "search.levels=20",
                    "--store", str(small / "s"))  # fmt: skip
        assert again.returncode == 0, again.stderr
        stored = [json.loads(line).get("stored") for line in again.stdout.splitlines()]
        assert stored.count(True) >= len(kept) - 1
    finally:
        subprocess.run(["umount", str(small)], check=False)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_stops_at_a_safe_point_and_says_how_to_go_on(here: Path, jobs: str) -> None:
    (here / "tiny.toml").write_text(QUICK.format(length="20000it", more=""))
    with subprocess.Popen(
        command("recipe", "tiny.toml", "--jobs", jobs), cwd=here, env=environment(here), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not list((here / "store" / "locks").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "run the same command again" in err
    assert err.splitlines()[-1] == "stopped; the same command goes on from here"
    assert list((here / "store" / "scratch").rglob("state.json"))  # the training under way was kept
    assert not out.strip()


def test_a_plugin_that_breaks_in_a_run_is_named_without_a_traceback(here: Path) -> None:
    (here / "mine.py").write_text(PLUGIN)
    done = cli(
        here,
        "recipe",
        "tiny.toml",
        "--jobs",
        "1",
        "--trust",
        "mine.py",
        "--set",
        "criterion=broken",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for part in (
        "mine.py/broken",
        "==local",
        "score()",
        "fc1.weight",
        "ZeroDivisionError: no luck",
    ):
        assert part in done.stderr.replace("\n", "")


BREAKS_IN_A_JOB = """
from lotteryfw import Schedule, hookimpl

class Broken(Schedule):
    "Breaks in a training."
    use = "broken"
    def factor(self, step, clock):
        if step > 20:
            raise ZeroDivisionError("no luck")
        return 1.0

@hookimpl
def register_components():
    return [Broken]
"""


@pytest.mark.parametrize(
    ("plugin", "axis", "jobs"),
    [
        (PLUGIN, 'criterion = ["random", "broken"]', "1"),
        (BREAKS_IN_A_JOB, '"train.schedule" = ["constant", "broken"]', "1"),
        (BREAKS_IN_A_JOB, '"train.schedule" = ["constant", "broken"]', "2"),
        # the failure is the first thing that the run records
        (BREAKS_IN_A_JOB, '"train.schedule" = ["broken"]', "1"),
    ],
)
def test_the_last_lines_name_the_cell_that_failed_and_its_traceback(
    here: Path, plugin: str, axis: str, jobs: str
) -> None:
    (here / "mine.py").write_text(plugin)
    grid = f"seeds = [0]\n[grid]\n{axis}\n"
    recipe = QUICK.format(length="40it", more=grid).replace("seeds = [0, 1]", "")
    (here / "tiny.toml").write_text(recipe)
    words = ("recipe", "tiny.toml", "--trust", "mine.py", "--out", "run", "--jobs", jobs)
    done = cli(here, *words)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "run"
    failed, reason = done.stderr.splitlines()[-2:]
    (cell,) = [name for name, end in manifest(here)["cells"].items() if end == "failed"]
    cells = "2 cells" if "," in axis else "1 cell"
    assert failed == f"1 of {cells} failed: {cell} (traceback: run/errors/001.txt)"
    assert "ZeroDivisionError: no luck" in reason
    assert "ZeroDivisionError: no luck" in (here / "run" / "errors" / "001.txt").read_text()
    again = cli(here, "report", "run")
    assert (again.returncode, again.stdout.splitlines()[-2:]) == (0, [failed, reason])
    assert f"- failed: {cell}: {reason.strip()}" in cli(here, "report", "run", "--markdown").stdout
    told = json.loads(cli(here, "report", "run", "--json").stdout)["failed"]
    assert told == [{"cell": cell, "reason": reason.strip(), "traceback": "errors/001.txt"}]
    page = (here / "run" / "report.html").read_text().replace("<wbr>", "")
    assert "ZeroDivisionError: no luck" in page


def manifest(here: Path) -> dict[str, Any]:
    return RunFolder(here / "run").read_manifest()


def test_a_plugin_file_needs_trust(here: Path) -> None:
    (here / "mine.py").write_text(PLUGIN)
    (here / "tiny.toml").write_text(
        'plugins = ["mine.py"]\n' + QUICK.format(length="40it", more="")
    )
    assert "--trust mine.py" in refused(here, "recipe", "tiny.toml")
    assert cli(here, "check", "tiny.toml", "--trust", "mine.py").returncode == 0


def test_a_redirected_log_ends_its_last_line_and_prints_names_in_brackets(here: Path) -> None:
    grid = 'grid = { scope = [{ use = "global", exclude = ["fc3*"] }] }'
    (here / "tiny.toml").write_text(QUICK.format(length="40it", more=grid))
    with (here / "log").open("w") as log:
        words = command("recipe", "tiny.toml", "--jobs", "1")
        assert (
            subprocess.run(
                words, cwd=here, env=environment(here), stdout=log, stderr=log
            ).returncode
            == 0
        )
    lines = (here / "log").read_text().splitlines()
    [progress] = [
        line
        for line in lines
        if "test accuracy" in line and "remaining" in line and "level 2" in line
    ]
    assert "fc3*" in progress
    assert any(line.startswith("tiny: test accuracy") for line in lines)


def test_export_of_a_ticket_that_is_not_there(here: Path) -> None:
    cell = here / "tickets"
    cell.mkdir()
    (cell / "level-01.safetensors").touch()
    message = refused(here, "export", "tickets/level-09.safetensors", "--out", "x")
    assert message.count("level-09") == 1
    assert "did you mean 'level-01.safetensors'?" in message
    assert "tickets in it: level-01.safetensors" in refused(here, "export", "tickets", "--out", "x")
    assert "no such ticket" in refused(here, "export", "nowhere/at/all", "--out", "x")
