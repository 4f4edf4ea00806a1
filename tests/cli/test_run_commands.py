"""Commands about finished runs: their list, deleting them, comparing them, their JSON."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.commands import QUICK, cli
from support.fake_runs import curves, fake_run

from lotteryfw.report.data.units import percent
from lotteryfw.store import RunFolder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one recipe that differ in an option."""
    folder = tmp_path_factory.mktemp("listed")
    (folder / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    for name, rate in (("slow", "0.01"), ("fast", "0.2")):
        done = cli(
            folder, "recipe", "tiny.toml", "--quiet", "--jobs", "1", "--out", f"runs/{name}",
            "--set", f"train.optimizer.lr={rate}", "--set", "seeds=[0,1,2]",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


def lines(here: Path, *words: str) -> list[dict[str, Any]]:
    done = cli(here, *words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_list_has_dates_changes_seeds_accuracies_and_cells(here: Path) -> None:
    text = cli(here, "runs", "--at", "0.8", COLUMNS="160").stdout
    for part in ("runs/fast", "train.optimizer.lr=0.2", "0–2", "9; 3 done", "at 80 %", "UTC"):
        assert part in text
    fast, slow = lines(here, "runs", "--at", "0.8,0.1")
    assert (fast["run"], slow["run"]) == ("runs/fast", "runs/slow")
    assert fast["overrides"] == ["train.optimizer.lr=0.2", "seeds=[0,1,2]"]
    assert (fast["recipe"], fast["profile"], fast["seeds"]) == ("tiny", None, [0, 1, 2])
    assert fast["seconds"] > 0
    assert fast["cells"] == {"done": 3}
    assert fast["claims"] == {}
    assert fast["at"]["0.1"] is None
    assert fast["at"]["0.8"]["density"] == pytest.approx(0.8, abs=0.02)
    assert 0 < fast["best"]["test_accuracy"] <= 1
    assert lines(here, "runs", "list", "runs") == lines(here, "runs")


@pytest.mark.parametrize("columns", [80, 160])
def test_folders_and_dates_are_whole_and_changes_are_shortened(
    here: Path, tmp_path: Path, columns: int
) -> None:
    name = "runs/quickstart-quick-92ae5cda"
    shutil.copytree(here / "runs" / "fast", tmp_path / name)
    shutil.copytree(here / "runs" / "slow", tmp_path / "runs" / "slow")
    text = cli(tmp_path, "runs", COLUMNS=str(columns)).stdout
    shown = text.splitlines()
    assert max(map(len, shown)) <= columns
    for line in lines(tmp_path, "runs"):
        assert any(one.split()[0] == line["run"] for one in shown[3:])
        assert line["date"].replace("T", " ")[:16] in text
        assert line["overrides"][1] == "seeds=[0,1,2]"
    assert ("train." in text and "…" in text) is (columns == 80)
    # a folder that is wider than the terminal is whole, too
    (tmp_path / name).rename(tmp_path / "runs" / ("long-" * 20))
    assert "long-" * 20 in cli(tmp_path, "runs", COLUMNS="80").stdout


def test_the_list_is_filtered_and_sorted(here: Path) -> None:
    def names(*words: str) -> list[str]:
        return [Path(line["run"]).name for line in lines(here, "runs", *words)]

    assert names("--override", "lr=0.01") == ["slow"]
    assert names("--recipe", "other") == []
    assert names("--profile", "quick") == []
    assert names("--status", "done") == ["fast", "slow"]
    assert names("--status", "failed") == []
    assert names("--since", "2000-01-01") == ["fast", "slow"]
    assert names("--since", "2999-01-01") == []
    # other forms of ISO 8601 are days, too, and no texts to compare dates with
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    for form in ("%Y%m%d", "%G-W%V-%u"):
        assert names("--since", yesterday.strftime(form)) == ["fast", "slow"]
    assert names("--since", "29990101") == []
    assert names("--sort", "name", "--reverse") == ["slow", "fast"]
    assert names("--sort", "date") == ["slow", "fast"]
    best = {Path(line["run"]).name: line["best"]["test_accuracy"] for line in lines(here, "runs")}
    assert names("--sort", "accuracy") == sorted(best, key=lambda name: best[name])


def test_a_stopped_run_is_listed_as_unfinished(here: Path, tmp_path: Path) -> None:
    whole = RunFolder(here / "runs" / "fast")
    stopped = shutil.copytree(whole.path, tmp_path / "runs" / "stopped")
    manifest = whole.read_manifest()
    manifest["cells"] = {"tiny/seed=0": "done", "tiny/seed=1": "unfinished"}
    RunFolder(stopped).write_manifest(manifest)
    (stopped / "checksums.json").unlink()
    (line,) = lines(tmp_path, "runs", "--status", "unfinished")
    assert line["run"] == "runs/stopped"
    assert cli(here, "runs", "--status", "unfinished").stdout == ""
    told = "1 of 2 cells not finished; the same `lotteryfw recipe` command goes on"
    assert cli(tmp_path, "report", "runs/stopped").stdout.splitlines()[-1] == told
    assert told in (stopped / "report.html").read_text()
    # one that was killed before it first wrote its results
    for name in ("manifest.json", "levels.csv", "curves.jsonl"):
        (stopped / name).unlink()
    shown = cli(tmp_path, "report", "runs/stopped").stdout.splitlines()
    assert shown[-1] == "no cell has finished; the same `lotteryfw recipe` command goes on"


def test_wrong_filters_are_refused(here: Path) -> None:
    assert "'10%' is no density" in cli(here, "runs", "--at", "10%").stderr
    assert "'yesterday' is no day" in cli(here, "runs", "--since", "yesterday").stderr


def test_two_runs_are_compared_as_text_markdown_json_and_page(here: Path) -> None:
    words = ("compare", "runs/slow", "runs/fast")
    text = cli(here, *words, "--html", "page.html").stdout
    assert "tiny · ticket: test accuracy, %, fast - slow" in text
    assert "95 % interval" in text
    assert "page: page.html" in text
    assert "<figure" in (here / "page.html").read_text()
    markdown = cli(here, *words, "--markdown").stdout
    assert "| weights remaining, % | slow | fast | difference |" in markdown
    compared = lines(here, *words)
    assert compared[0]["density"] == 1
    assert len(compared) == 3
    assert {len(line["seeds"]) for line in compared} == {3}
    refused = cli(here, *words, "--metric", "acuracy")
    assert refused.returncode == 2
    assert "no metric 'acuracy'" in refused.stderr
    assert cli(here, "compare", "runs/slow").returncode == 2


def test_report_as_json_has_paths_and_claims(here: Path) -> None:
    [line] = lines(here, "report", "runs/fast")
    assert (here / line["report"]).is_file()
    assert line["claims"] == []


def test_every_level_and_figures_by_seed_are_there_on_request(here: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", curves("many", [{"criterion": "a"}], seeds=(0, 1), levels=25))
    short = cli(tmp_path, "report", "run", COLUMNS="80").stdout
    assert "`lotteryfw report RUN --every-level`" in " ".join(short.split())
    done = cli(tmp_path, "report", "run", "--every-level", "--by-seed", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    heads = " ".join(line for line in done.stdout.splitlines() if "weights remaining" in line)
    for level in range(26):
        assert heads.split().count(percent(0.8**level)) == 2  # accuracy and early-stopping step
    assert max(map(len, done.stdout.splitlines()[:80])) <= 80
    assert "not shown here" not in done.stdout
    pytest.importorskip("matplotlib")
    assert (run.path / "figures" / "many-first_1_of_2_seeds.png").is_file()


def test_a_run_is_deleted_with_its_claim_on_the_store(here: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text((here / "tiny.toml").read_text())
    for name, levels in (("one", 1), ("two", 2)):
        words = ("--set", f"search.levels={levels}", "--quiet", "--jobs", "1")
        cli(tmp_path, "recipe", "tiny.toml", *words, "--out", name)
    (tmp_path / "two" / "notes.txt").write_text("mine")
    assert cli(tmp_path, "runs", "rm", "two").returncode != 0  # nobody said yes
    dry = cli(tmp_path, "runs", "rm", "two", "--dry-run").stdout
    assert "two: would delete" in dry
    assert (tmp_path / "two" / "levels.csv").is_file()
    # level 2 of two seeds is what the first run does not need
    assert "  2 objects" in dry
    with FileLock(tmp_path / "two" / ".lock"):
        held = cli(tmp_path, "runs", "rm", "two", "--yes")
    assert held.returncode == 1
    assert "under way in another process" in held.stderr

    [line] = lines(tmp_path, "runs", "rm", "two", "--yes", "--gc")
    assert (line["deleted"], line["objects"], line["others"]) == (True, 2, ["notes.txt"])
    assert os.listdir(tmp_path / "two") == ["notes.txt"]
    assert lines(tmp_path, "store", "info")[0]["roots"] == 1
    assert lines(tmp_path, "store", "gc", "--dry-run")[0]["objects"] == 0
    again = cli(
        tmp_path,
        "recipe",
        "tiny.toml",
        "--jobs",
        "1",
        "--set",
        "search.levels=1",
        "--json",
        "--out",
        "one",
    )
    stored = [json.loads(line).get("stored") for line in again.stdout.splitlines()]
    assert False not in stored

    cli(tmp_path, "runs", "rm", "one", "--yes")
    assert not (tmp_path / "one").exists()
    message = cli(tmp_path, "runs", "rm", "one", "--yes")
    assert message.returncode == 2
    assert "not the folder of a run" in message.stderr


def test_looking_at_a_store_that_is_absent_creates_nothing(tmp_path: Path) -> None:
    for command in ("info", "verify", "gc"):
        done = cli(tmp_path, "store", command, "--store", "nowhere")
        assert done.returncode == 0
        assert "nowhere: there is no store yet" in done.stdout
        assert lines(tmp_path, "store", command, "--store", "nowhere") == [
            {"store": "nowhere", "absent": True}
        ]
    assert not list(tmp_path.iterdir())


def test_reports_need_no_pandas(here: Path, tmp_path: Path) -> None:
    """A module of that name that cannot be imported stands before the real one."""
    (tmp_path / "pandas.py").write_text("raise ImportError('no pandas here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for words in (("report", "runs/fast"), ("runs",), ("compare", "runs/fast", "runs/slow")):
        done = cli(here, *words, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
