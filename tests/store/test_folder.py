"""Run folders: levels.csv to the bit, and messages for folders that cannot be used."""

import dataclasses
import errno
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import LevelRow, RunFolder, find_runs

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)
FIGURES = st.none() | st.floats()
OPTIONS = st.integers() | st.booleans() | TEXTS | st.floats(allow_nan=False, allow_infinity=False)
ENTRIES = st.dictionaries(TEXTS, OPTIONS | st.dictionaries(TEXTS, st.lists(OPTIONS), max_size=3))
MEASURED = st.dictionaries(st.sampled_from(["top_5", "nll", "train_loss"]), st.floats())
ROWS = st.builds(
    LevelRow,
    **{
        column.name: {
            "str": TEXTS,
            "int": st.integers(0, 2**40),
            "float": st.floats(0, 1),
            "float | None": FIGURES,
            "bool": st.booleans(),
            "Mapping[str, Any]": ENTRIES,
            "Mapping[str, float]": MEASURED,
        }[column.type]
        for column in dataclasses.fields(LevelRow)
        if column.name != "axes"
    },
    axes=st.dictionaries(
        st.sampled_from(["prune.criterion", "train.length", "seed", "key"]), TEXTS.filter(bool)
    ),
)
ROW = LevelRow(
    "criteria", "c1", "ticket", 0, 1, "done", 0.8, 0.8, 8, 10, 500, 400, *[0.5] * 8, "fc1.weight=0.8", "ab12",
    False, {"criterion": {"use": "large_final"}}, {"criterion": "large_final"},
)  # fmt: skip


def exactly(row: LevelRow) -> tuple:
    """What two rows share only if they are the same to the bit: NaN is itself, and 0.0 is not -0.0."""
    measured = {name: repr(value) for name, value in row.metrics.items()}
    return repr(dataclasses.replace(row, axes={}, metrics={})), row.axes, measured


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "given = 1", "resolved = 1")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> RunFolder:
    return RunFolder.create(tmp_path_factory.mktemp("run"), "", "")


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_levels_read_back_as_they_were(shared, rows):
    shared.write_levels(rows)
    assert list(map(exactly, shared.read_levels())) == list(map(exactly, rows))


def test_findings_written_before_they_had_a_unit_are_read_as_numbers(run):
    old, new = (
        {"figure": "norm", "value": 0.5},
        {"figure": "overlap", "unit": "share", "value": 0.5},
    )
    run.write_findings([old, new])
    assert run.read_findings() == [old | {"unit": "number"}, new]


def test_a_finding_without_a_value_is_named_with_its_file(run):
    (run.path / "analyses.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"analyses\.jsonl: not findings: a line has no 'value'"):
        run.read_findings()


def test_numbers_that_are_not_finite_are_null_with_a_note_and_read_back_as_no_number(run):
    run.write_findings(
        [{"figure": "ratio", "value": math.inf}, {"figure": "w_i", "value": (0.5, math.nan)}]
    )
    lines = (run.path / "analyses.jsonl").read_text().splitlines()
    strict = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [(line["value"], line["note"]) for line in strict] == [
        (None, "not finite: inf"), ([0.5, None], "not finite: nan"),
    ]  # fmt: skip
    first, second = run.read_findings()
    assert math.isnan(first["value"])
    assert second["value"][0] == 0.5
    assert math.isnan(second["value"][1])
    run.write_findings([first, second])  # as a run does that goes on
    assert (run.path / "analyses.jsonl").read_text().splitlines()[0].count("not finite: inf")
    run.append_event({"event": "level_finished", "metrics": {"test_loss": math.nan}})
    run.write_curves([{"train_loss": [None, math.inf]}])
    run.write_manifest({"speed": math.nan})
    for name in ("events.jsonl", "curves.jsonl", "manifest.json"):
        json.loads((run.path / name).read_text(), parse_constant=pytest.fail)


def test_the_columns_stand_in_their_order(run):
    run.write_levels(
        [ROW, dataclasses.replace(ROW, axes={"layers": "3"}, test_loss=None, status="diverged")]
    )
    header, first, second = (run.path / "levels.csv").read_text().splitlines()
    assert header.startswith(
        "study,cell,variant,seed,level,status,density,requested_density,weights_kept,weights_total,steps,"
    )
    assert header.endswith(
        "early_test_accuracy,layer_densities,key,learned,axis_values,criterion,layers"
    )
    entry = '"{""criterion"": {""use"": ""large_final""}}"'
    assert first.endswith(f"fc1.weight=0.8,ab12,false,{entry},large_final,")
    assert ",0.5,0.5,,0.5," in second


def test_numpy_figures_and_no_numbers_are_written_as_numbers(run):
    run.write_levels([dataclasses.replace(ROW, density=np.float64(0.1), test_loss=math.nan)])
    row = run.read_levels()[0]
    assert row.density == 0.1
    assert math.isnan(row.test_loss)


def test_no_levels_yet(run):
    assert run.read_levels() == []
    run.write_levels([])
    assert run.read_levels() == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace(",500,", ",many,"), "line 2: .*many"),
        (lambda text: text.replace("variant", "leg"), "line 1: the columns should begin"),
        (lambda text: text[:-20] + "\n", "line 2: .*header has 25"),
        (lambda text: "", "the columns should begin"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(run, damage, words):
    run.write_levels([ROW])
    path = run.path / "levels.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=rf"levels\.csv: .*{words}"):
        run.read_levels()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match=r"levels\.csv"):
        run.read_levels()


def test_a_full_disk_keeps_the_levels_written_before(run, monkeypatch):
    run.write_levels([ROW])
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(os, "replace", full)
        with pytest.raises(StoreError, match="disk is full"):
            run.write_levels([ROW, ROW])
    assert run.read_levels() == [ROW]
    assert not list(run.path.glob(".*"))


def test_a_folder_is_made_and_reopened(run):
    assert (run.path / "recipe.toml").read_text() == "given = 1"
    run.write_levels([ROW])
    again = RunFolder.create(run.path, "given = 2", (run.path / "resolved.toml").read_text())
    assert again.read_levels() == [ROW]
    assert (run.path / "recipe.toml").read_text() == "given = 2"
    with pytest.raises(UsageError, match="holds the run of another study"):
        RunFolder.create(run.path, "given = 3", "resolved = 2")
    assert (run.path / "recipe.toml").read_text() == "given = 2"


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "recipe.toml").write_text("mine")
    with pytest.raises(UsageError, match="files that are not a run's"):
        RunFolder.create(tmp_path, "given", "resolved")
    assert (tmp_path / "recipe.toml").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_users_mistake(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="file") as caught:
            RunFolder.create(path, "", "")
        assert caught.value.exit_code == 2

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(UsageError, match="no permission"):
        RunFolder.create(tmp_path / "run", "", "")


def test_events_are_lines_even_after_a_kill(run):
    run.append_event({"event": "started", "n": 1})
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "hal')
    run.append_event({"event": "again"})
    run.append_event({"event": "done"})
    lines = (run.path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines if line.endswith("}")] == [
        "started",
        "again",
        "done",
    ]
    assert len(lines) == 4


def test_the_manifest_reads_back(run):
    assert run.read_manifest() == {}
    run.write_manifest({"seeds": [0, 1], "versions": {"torch": "2"}})
    assert run.read_manifest() == {"seeds": [0, 1], "versions": {"torch": "2"}}
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="manifest"):
        run.read_manifest()


def test_errors_and_tickets_have_their_places(run):
    path = run.write_error("cell-1", "Traceback …")
    assert path == run.path / "errors" / "cell-1.txt"
    assert path.read_text(encoding="utf-8") == "Traceback …"
    assert run.ticket_path("cell-1-level3") == run.path / "tickets" / "cell-1-level3.safetensors"


def test_runs_are_found(run, tmp_path):
    RunFolder.create(tmp_path / "another", "", "")
    (tmp_path / "notes").mkdir()
    assert [found.path.name for found in find_runs(tmp_path)] == ["another", "run"]
    assert find_runs(run.path) == [run]
    assert find_runs(tmp_path / "absent") == []


def test_an_event_log_stays_open_and_follows_a_folder_that_is_made_again(tmp_path):
    from lotteryfw.store import EventLog

    run = RunFolder(tmp_path / "run")
    log = EventLog(run.path)
    log.append({"event": "one"})
    log.append({"event": "two"})
    assert [event["event"] for event in run.read_events()] == ["one", "two"]
    (run.path / "events.jsonl").unlink()
    run.path.rmdir()
    log.append({"event": "three"})
    log.close()
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "cut o')
    log.append({"event": "four"})
    log.close()
    assert [event["event"] for event in run.read_events()] == ["three", "four"]
