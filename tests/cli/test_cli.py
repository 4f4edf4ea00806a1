"""The command line as a user meets it: what it prints, where, and which exit code it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import QUICK, command, environment
from support.paths import ROOT


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    return tmp_path


def cli(here: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=here, env=environment(here, **more), capture_output=True, text=True
    )


def refused(here: Path, *words: str, **more: str) -> str:
    """The message of a command that a user's mistake ends: exit code 2, nothing on stdout, no traceback."""
    done = cli(here, *words, **more)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "store" / "objects").exists()  # before anything is trained
    return done.stderr


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
    assert "6 rows; cells: 2 done" in cli(here, "runs").stdout


def test_plan_and_dry_run_train_nothing(here: Path) -> None:
    for words in (("plan", "tiny.toml"), ("recipe", "tiny.toml", "--dry-run")):
        told = cli(here, *words)
        assert told.returncode == 0
        assert "trainings asked for" in told.stdout
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
        told = refused(here, "recipe", "tiny.toml")
        for part in parts:
            assert part in told


def test_all_faults_are_told_at_once(here: Path) -> None:
    text = (
        (here / "tiny.toml")
        .read_text()
        .replace("batch = 16", "batch = 0")
        .replace('"mlp"', '"mpl"')
    )
    (here / "tiny.toml").write_text(text + "\nmomentum = 1\n")
    told = refused(here, "check", "tiny.toml")
    assert "3 faults" in told
    for part in ("train.batch", "'mpl'", "train.momentum"):
        assert part in told


def test_other_mistakes(here: Path) -> None:
    assert "nowhere.toml" in refused(here, "recipe", "nowhere.toml")
    assert "no kind 'criterium'" in refused(here, "list", "criterium")
    assert "large_final" in refused(here, "show", "large_finale")
    assert "quick" in refused(
        here, "recipe", str(ROOT / "recipes" / "deconstruct.toml"), "--profile", "quik"
    )
    told = refused(here, "recipe", str(ROOT / "recipes" / "deconstruct.toml"), "--profile", "quick")
    assert str(here / "data") in told
    assert "lotteryfw data fetch mnist" in told
    assert "cuda" in refused(here, "recipe", "tiny.toml", "--device", "tpu")
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
    assert list((here / "store" / "scratch").rglob("state.json"))  # the training under way was kept
    assert not out.strip()


PLUGIN = """
from lotteryfw import MaskCriterion, hookimpl

class Broken(MaskCriterion):
    "Breaks."
    use = "broken"
    def score(self, layer):
        raise ZeroDivisionError("no luck")

@hookimpl
def register_components():
    return [Broken]

@hookimpl
def register_commands(app):
    @app.command()
    def hello():
        print("hello from a plugin")
"""


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


def test_a_plugin_file_needs_trust(here: Path) -> None:
    (here / "mine.py").write_text(PLUGIN)
    (here / "tiny.toml").write_text(
        'plugins = ["mine.py"]\n' + QUICK.format(length="40it", more="")
    )
    assert "--trust mine.py" in refused(here, "recipe", "tiny.toml")
    assert cli(here, "check", "tiny.toml", "--trust", "mine.py").returncode == 0


def installed(folder: Path, name: str, text: str) -> str:
    """A distribution on disk that offers a plugin; returns the folder for PYTHONPATH."""
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[lotteryfw]\n{name} = {name}\n")
    return str(folder)


def test_installed_plugins_add_components_and_commands_and_can_be_left_out(
    here: Path, tmp_path: Path
) -> None:
    path = {"PYTHONPATH": installed(tmp_path, "strangers", PLUGIN)}
    assert "broken" in cli(here, "list", "criterion", **path).stdout
    assert "hello from a plugin" in cli(here, "hello", **path).stdout
    assert "hello" in cli(here, "--help", **path).stdout
    assert (
        "left out  strangers" in cli(here, "plugins", LOTTERYFW_WITHOUT="strangers", **path).stdout
    )
    assert cli(here, "hello", LOTTERYFW_WITHOUT="strangers", **path).returncode == 2
    misspelt = PLUGIN.replace("def register_components", "def register_component")
    bad = {
        "PYTHONPATH": installed(tmp_path / "x", "bad", misspelt)
        if (tmp_path / "x").mkdir() is None
        else ""
    }
    told = cli(here, "plugins", **bad).stdout
    for part in ("failed", "bad", "1.2", "hooks", "register_components", "LOTTERYFW_WITHOUT=bad"):
        assert part in told


def test_show_tells_formula_options_source_provider_and_example(here: Path) -> None:
    told = cli(here, "show", "large_final").stdout
    for part in (
        "|w_f|",
        "Frankle & Carbin 2019",
        "lotteryfw==",
        '[criterion]\nuse = "large_final"'.replace("\n", "\n  "),
    ):
        assert part in told
    assert "length" in cli(here, "show", "to_step").stdout


def test_list_names_every_component(here: Path) -> None:
    from lotteryfw.registry import Registry

    found: list[dict[str, Any]] = json.loads(cli(here, "list", "--json").stdout)
    assert {(each["kind"], each["name"]) for each in found} == {
        (o.kind, o.name) for o in Registry.load().offers()
    }
    told = cli(here, "list").stdout
    assert all(each["name"] in told and each["summary"] in told for each in found)


def test_schema_is_json_and_knows_components(here: Path) -> None:
    text = cli(here, "schema").stdout
    assert json.loads(text)["$schema"]
    assert '"large_final"' in text


def test_store_commands(here: Path) -> None:
    assert cli(here, "recipe", "tiny.toml", "-q", "--jobs", "1").returncode == 0
    assert "7 objects" in cli(here, "store", "info").stdout
    assert "7 objects checked, 0 damaged" in cli(here, "store", "verify").stdout
    victim = next((here / "store" / "objects").rglob("tensors.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-3])
    damaged = cli(here, "store", "verify")
    assert damaged.returncode == 1
    assert "1 damaged" in damaged.stdout
    assert cli(here, "store", "gc", "--dry-run").stdout.startswith("would remove 0 objects")
    subprocess.run(["rm", "-r", str(here / "runs")], check=True)
    kept = cli(
        here, "store", "gc"
    ).stdout  # the folder of the runs is gone, too: it may be a disk that is not mounted
    assert kept.startswith("removed 0 objects")
    assert "--force" in kept
    assert cli(here, "store", "gc", "--force").stdout.startswith("removed 6 objects")


def test_data_list_and_fetch_without_a_network(here: Path) -> None:
    told = cli(here, "data", "list").stdout
    assert "digits" in told
    assert "ready: 1×8×8, 10 classes" in told
    assert "lotteryfw data fetch mnist" in told
    assert "nosuch" in refused(here, "data", "fetch", "nosuch")


def test_doctor_tells_the_data_sets_that_are_here(here: Path) -> None:
    raw = here / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{what}-ubyte").write_text("x")
    before = cli(here, "doctor", "--data", "sets").stdout
    (line,) = (line for line in before.splitlines() if "fingerprint" in line)
    assert line.strip().startswith("mnist: 4 files, fingerprint ")
    (raw / "t10k-images-idx3-ubyte").write_text("y")
    assert line not in cli(here, "doctor", "--data", "sets").stdout


def test_doctor_tells_versions_and_folders(here: Path) -> None:
    told = cli(here, "doctor").stdout
    for part in ("torch", "device", str(here / "store"), str(here / "data"), "plugins"):
        assert part in told


def test_help_and_import_are_light(here: Path) -> None:
    """Not a timing: neither may load torch, which alone takes longer than a help text should."""
    for code in (
        "import lotteryfw",
        "import sys; sys.argv[1:] = ['--help']; from lotteryfw.cli import main; main()",
    ):
        told = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
        )
        modules = [line.split("|")[-1].strip() for line in told.stderr.splitlines()]
        assert "lotteryfw" in modules
        assert "torch" not in modules
    planned = subprocess.run([sys.executable, "-X", "importtime", *command("plan", "tiny.toml")[1:]], cwd=here,
                             env=environment(here), capture_output=True, text=True)  # fmt: skip
    assert planned.returncode == 0
    assert "torch" not in [line.split("|")[-1].strip() for line in planned.stderr.splitlines()]


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
    told = refused(here, "export", "tickets/level-09.safetensors", "--out", "x")
    assert told.count("level-09") == 1
    assert "did you mean 'level-01.safetensors'?" in told
    assert "known: level-01.safetensors" in refused(here, "export", "tickets", "--out", "x")
    assert "no such ticket" in refused(here, "export", "nowhere/at/all", "--out", "x")
