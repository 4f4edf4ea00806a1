"""The events that plugins hear of: every point of a curve, every finding, and the run of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import recipe

from lotteryfw import LotteryError, run
from lotteryfw.recipe.shipped import recipes_by_name
from lotteryfw.recipe.toml_writer import to_toml
from lotteryfw.registry import Registry

TRACKER = """
import json
from pathlib import Path

from lotteryfw import hookimpl

LOG = Path(__file__).with_name("heard.jsonl")


def hear(name, event):
    fields = {key: value for key, value in vars(event).items() if key != "metrics"}
    with LOG.open("a") as file:
        file.write(json.dumps({"hook": name, **fields}) + "\\n")


@hookimpl
def run_started(event):
    hear("run_started", event)


@hookimpl
def job_finished(event):
    hear("job_finished", event)


@hookimpl
def evaluated(event):
    hear("evaluated", event)


@hookimpl
def finding(event):
    hear("finding", event)


@hookimpl
def level_finished(event):
    hear("level_finished", event)


@hookimpl
def cell_finished(event):
    hear("cell_finished", event)


@hookimpl
def run_finished(event):
    hear("run_finished", event)
"""


def heard(folder: Path, table: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    plugin = folder / "tracker.py"
    plugin.write_text(TRACKER)
    done = run(
        table, out=folder / "run", store=folder / "store", trust=[plugin], jobs=1, device="cpu"
    )
    assert set(done.statuses.values()) == {"done"}
    lines = (folder / "heard.jsonl").read_text().splitlines()
    return done, [json.loads(line) for line in lines]


def test_every_point_of_every_curve_and_every_finding_is_heard(tmp_path: Path) -> None:
    table = recipe(seeds=[0], analyses=["mask_diagnostics", "mask_overlap"])
    done, events = heard(tmp_path, table)
    assert {event["run"] for event in events} == {str(done.path)}
    points = [event for event in events if event["hook"] == "evaluated"]
    curves = [json.loads(line) for line in (done.path / "curves.jsonl").read_text().splitlines()]
    expected = []
    for curve in curves:
        for index, step in enumerate(curve["step"]):
            loss, accuracy = curve["validation_loss"][index], curve["validation_accuracy"][index]
            expected.append((curve["level"], step, curve["train_loss"][index], loss, accuracy))
    names = ("level", "step", "train_loss", "validation_loss", "validation_accuracy")
    assert sorted(tuple(point[name] for name in names) for point in points) == sorted(expected)
    # the points of a level come before the level
    order = [(event["hook"], event.get("level")) for event in events]
    for level in {curve["level"] for curve in curves}:
        last_point = len(order) - 1 - order[::-1].index(("evaluated", level))
        assert last_point < order.index(("level_finished", level))

    findings = [event for event in events if event["hook"] == "finding"]
    assert len(findings) == len(done.findings) > 0
    told = {(one["analysis"], one["figure"], one["level"], one["layer"]) for one in findings}
    assert told == {(one.analysis, one.figure, one.level, one.layer) for one in done.findings}


def test_the_log_does_not_repeat_what_other_files_have(tmp_path: Path) -> None:
    done, _ = heard(tmp_path, recipe(seeds=[0], analyses=["mask_diagnostics"]))
    log = [json.loads(line) for line in (done.path / "events.jsonl").read_text().splitlines()]
    assert {line["event"] for line in log}.isdisjoint({"evaluated", "finding"})
    assert all("run" not in line for line in log)


RECIPES = """
from pathlib import Path

from lotteryfw import hookimpl


@hookimpl
def register_recipes():
    return [Path(__file__).with_name(name) for name in {names}]
"""


def test_a_recipe_of_a_plugin_is_run_by_its_name(tmp_path: Path) -> None:
    plugin = tmp_path / "good.py"
    plugin.write_text(RECIPES.format(names=["mine.toml"]))
    (tmp_path / "mine.toml").write_text(to_toml(recipe(seeds=[0], name="mine")))
    for name in ("good.py/mine", "mine"):
        done = run(
            name,
            out=tmp_path / name.replace("/", "-"),
            store=tmp_path / "store",
            trust=[plugin],
            jobs=1,
        )
        assert set(done.statuses.values()) == {"done"}
    assert "mine" in recipes_by_name(Registry.load([plugin]))
    # lotteryfw's own recipe keeps its name
    (tmp_path / "quickstart.toml").write_text("name = 'other'")
    plugin.write_text(RECIPES.format(names=["quickstart.toml"]))
    names = recipes_by_name(Registry.load([plugin]))
    assert names["good.py/quickstart"] == tmp_path / "quickstart.toml"
    assert names["quickstart"] != tmp_path / "quickstart.toml"
    with pytest.raises(
        LotteryError, match=r"good.py/lost: there is no such recipe|there is no such recipe"
    ):
        run("good.py/lost", out=tmp_path / "lost", store=tmp_path / "store", trust=[plugin])


def test_a_plugin_ships_recipes_and_one_that_names_none_breaks_nothing(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    (tmp_path / "mine.toml").write_text("name = 'mine'")
    good.write_text(RECIPES.format(names=["mine.toml"]))
    bad.write_text(RECIPES.format(names=["lost.toml"]))
    registry = Registry.load([good, bad])
    assert {name: file for name, file in registry.recipes().items() if ".py/" in name} == {
        "good.py/mine": tmp_path / "mine.toml"
    }
    (failure,) = [failure for failure in registry.failures if failure.distribution == "bad.py"]
    assert failure.stage == "register_recipes"
    assert "there is no file" in str(failure)
    assert "lost.toml" in str(failure)
