"""The density below which layers run sparse: measured on a machine, told by doctor, set by a recipe and by nothing
else."""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.recipes import changed, faults, load
from support.small import REGISTRY, cell, dense_job, describe
from typer.testing import CliRunner

from lotteryfw.engine import Chooser, Workshop, sparse_advice
from lotteryfw.engine.kernels import calibrate as module
from lotteryfw.engine.kernels.calibrate import DENSITIES, break_even, calibrate
from lotteryfw.engine.kernels.sparse import SPARSE_BELOW, backends
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[float], float]) -> None:
    """Steps that take so long at a density; dense ones take a second."""
    monkeypatch.setattr(
        module,
        "_steps",
        lambda of, widths, density, start: lambda: seconds(density) if start > 1 else 1.0,
    )


@given(start=st.floats(0.0, 0.2), slope=st.floats(1.7, 10.0))
def test_the_break_even_of_a_straight_line_is_where_it_crosses_one(
    start: float, slope: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch, lambda density: start + slope * density)
        assert break_even("torch", [2, 2], rounds=1) == pytest.approx(
            (1 - start) / slope, abs=0.006
        )


def test_products_that_never_or_always_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda density: 50.0)
    assert break_even("torch", [2, 2], rounds=1) == 0.0
    pretend(monkeypatch, lambda density: 0.5)
    assert break_even("torch", [2, 2], rounds=1) == max(DENSITIES)


def test_it_measures_every_back_end_and_keeps_what_it_found(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "calibration.json").write_text(
        json.dumps(
            {"elsewhere": {"date": "d", "versions": {"torch": "1"}, "below": {"torch": 0.1}}}
        )
    )
    found = calibrate(tmp_path, widths=(16, 8, 4), rounds=1)
    assert found.below.keys() == backends().keys() == found.versions.keys()
    assert all(0 <= below <= 1 for below in found.below.values())
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert set(kept) == {"elsewhere", platform.node()}
    assert kept[platform.node()]["below"] == found.below
    assert Store(tmp_path).gc().leftovers == 0
    assert (tmp_path / "calibration.json").exists()


def test_the_advice_has_the_default_the_finding_and_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = next(iter(backends()))
    default, unknown = sparse_advice(tmp_path)
    assert default.startswith(f"{best} ")
    assert f"below density {SPARSE_BELOW[best]} " in default
    assert "--calibrate" in unknown
    pretend(monkeypatch, lambda density: 4 * density)
    calibrate(tmp_path)
    assert sparse_advice(tmp_path)[0] == default
    assert f"break-even at 0.25 with {best}" in sparse_advice(tmp_path)[1]
    assert sparse_advice(tmp_path)[2].endswith("[engine] sparse_below = 0.25")
    monkeypatch.setattr(module, "version", lambda package: "0.0")
    assert "other versions" in sparse_advice(tmp_path)[2]
    (tmp_path / "calibration.json").write_text('{"a": 1')
    assert len(sparse_advice(tmp_path)) == 2


def test_doctor_calibrates_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lotteryfw.cli.app import app

    pretend(monkeypatch, lambda density: 4 * density)
    doctor = ["doctor", "--store", str(tmp_path), "--data", str(tmp_path)]
    assert "not measured on this machine" in CliRunner().invoke(app, doctor).output
    assert "sparse_below = 0.25" in CliRunner().invoke(app, [*doctor, "--calibrate"]).output
    assert "sparse_below = 0.25" in CliRunner().invoke(app, doctor).output


def test_what_was_measured_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda density: 50.0)
    job = dense_job(cell(2))
    sparse = replace(job, mask={name: mask & False for name, mask in job.mask.items()})
    sparse = replace(sparse, values={name: value * 0 + 0.0 for name, value in job.values.items()})
    choose = Chooser(Workshop(REGISTRY, Path("unused"), "cpu", Store(tmp_path)))
    before = choose(sparse, "auto")
    calibrate(tmp_path)
    assert choose(sparse, "auto") == before
    assert before.startswith("sparse/")


def test_a_recipe_sets_the_density_and_keeps_it() -> None:
    recipe = load(changed(engine={"sparse_below": 0.25}))
    assert {each.sparse_below for each in recipe.cells} == {0.25}
    resolved = recipe.resolved()
    assert tomllib.loads(tomli_w.dumps(resolved))["study"][0]["engine"] == {
        "kernel": "auto",
        "sparse_below": 0.25,
    }
    assert {each.sparse_below for each in load(resolved).cells} == {0.25}
    plain = load(changed())
    assert {each.sparse_below for each in plain.cells} == {None}
    assert {
        each.sparse_below for each in load(tomllib.loads(tomli_w.dumps(plain.resolved()))).cells
    } == {None}
    varied = load(changed(grid={"engine.sparse_below": [0.0, 1]}))
    assert [each.sparse_below for each in varied.cells] == [0.0, 0.0, 1.0, 1.0]
    for wrong in (-0.1, 1.1, "0.2"):
        (fault,) = faults(changed(engine={"sparse_below": wrong}))
        assert "engine.sparse_below" in fault


def test_a_cell_of_another_density_has_other_origins_and_asks_for_it() -> None:
    asked: list[float | None] = []

    def choose(job: Train, kernel: str, below: float | None) -> str:
        asked.append(below)
        return "reference/1"

    cells = [cell(sparse_below=below) for below in (None, 0.25)]
    desks = [CellLab(one, describe, Path("unused"), "cpu", choose) for one in cells]
    assert len({desk.job(desk.dense()).origin for desk in desks}) == 2
    assert asked == [None, 0.25]
