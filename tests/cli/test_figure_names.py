"""An objective that is no classification reports its own figure, and no accuracy, everywhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.commands import QUICK, cli

MORE = """
controls = ["random_mask"]
analyses = ["mask_diagnostics"]
evaluate.train = true
"""
CLAIM = """
[[claim]]
text = "tickets beat random masks"
source = "a test"
higher = { variant = "ticket" }
lower = { variant = "random_mask" }
"""
SMALL = ("--jobs", "1", "--set", "seeds=[0,1,2]")
NAME = "explained variance"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of reconstruction, one of classification, and what the first printed."""
    folder = tmp_path_factory.mktemp("figures")
    (folder / "tiny.toml").write_text(QUICK.format(length="40it", more=MORE) + CLAIM)
    objective = ("--set", "train.objective=reconstruction")
    done = cli(folder, "recipe", "tiny.toml", *SMALL, *objective, "--out", "runs/images")
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    done = cli(folder, "recipe", "tiny.toml", *SMALL, "--quiet", "--out", "runs/classes")
    assert done.returncode == 0, done.stderr
    return folder


def words_of(text: str) -> str:
    """Return a text of tables in one line."""
    return re.sub(r"\s+", " ", text)


def test_the_terminal_and_the_progress_name_the_figure(here: Path) -> None:
    for name in ("stdout.txt", "stderr.txt"):
        text = (here / name).read_text()
        assert f"test {NAME}" in words_of(text), name
        assert "accura" not in text.lower(), name
    assert f"tiny: test {NAME}, % (mean" in (here / "stdout.txt").read_text()
    assert f"tiny: train {NAME}, % (mean" in (here / "stdout.txt").read_text()


def test_the_markdown_names_the_figure(here: Path) -> None:
    text = cli(here, "report", "runs/images", "--markdown").stdout
    assert f"**tiny: test {NAME}, % (mean" in text
    assert "points (95 % interval" in text
    assert f"of early test {NAME} against the dense" in text
    assert "accura" not in text.lower()


class Texts(HTMLParser):
    """Collects the words of a page, and its data apart from plotly.js and the page's program."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.data: list[str] = []
        self._inside = ""
        self._is_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self._inside = tag
            self._is_data = ("type", "application/json") in attrs

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)
        elif self._is_data:
            self.data.append(data)


def test_the_page_names_the_figure_in_texts_axes_and_claims(here: Path) -> None:
    texts = Texts()
    texts.feed((here / "runs" / "images" / "report.html").read_text())
    page, data = words_of(" ".join(texts.words)), " ".join(texts.data)
    assert "Explained variance against weights remaining" in page
    assert "Explained variance against mask diagnostics" in page
    assert f"no lower test {NAME} there" in page
    assert f"test {NAME}, points" in page
    assert f"chosen by validation {NAME}" in page
    assert f"test {NAME}: ticket above variant=random_mask" in page
    assert "accura" not in page.lower()
    for axis in ("test {} (%)", "validation {} (%)", "test {} at the early-stopping step (%)"):
        assert axis.format(NAME) in data
    assert "accura" not in data.lower()
    # the mean squared error is no log-likelihood
    assert "validation loss" in data
    assert "nats" not in data
    classes = (here / "runs" / "classes" / "report.html").read_text()
    assert "validation loss (nats per example)" in classes


def test_the_files_say_which_figure_it_is(here: Path) -> None:
    run = here / "runs" / "images"
    assert json.loads((run / "manifest.json").read_text())["figures"] == {"tiny": NAME}
    classes = json.loads((here / "runs" / "classes" / "manifest.json").read_text())
    assert classes["figures"] == {"tiny": "accuracy"}
    head = (run / "levels.csv").read_text().splitlines()[0].split(",")
    assert {"test_accuracy", "validation_accuracy", "metric.train_accuracy"} <= set(head)
    svg = (run / "figures" / "tiny.svg").read_text()
    assert f"test {NAME} (%)" in svg
    assert "accura" not in svg


def test_lists_of_runs_name_the_figure_of_each(here: Path) -> None:
    text = words_of(cli(here, "runs", COLUMNS="200").stdout)
    assert "test accuracy or explained variance, %" in text
    assert re.search(r"\d explained variance \(ticket, at", text)
    assert re.search(r"\d accuracy \(ticket, at", text)
    lines = map(json.loads, cli(here, "runs", "--json").stdout.splitlines())
    assert {line["run"]: line["best"]["figure"] for line in lines} == {
        "runs/images": NAME,
        "runs/classes": "accuracy",
    }


def test_figures_of_two_meanings_are_not_compared(here: Path) -> None:
    done = cli(here, "compare", "runs/images", "runs/classes")
    assert done.returncode == 2
    assert (
        "tiny: images reports explained variance, classes accuracy, which cannot be compared"
        in words_of(done.stderr)
    )
    done = cli(here, "compare", "runs/images", "runs/classes", "--metric", "early_stop_step")
    assert done.returncode == 0, done.stderr


def test_an_objective_around_another_reports_the_inner_figure(here: Path) -> None:
    inner = 'train.objective={ use = "l1", strength = 1e-4, inner = "reconstruction" }'
    words = ("--jobs", "1", "--set", "seeds=[0]", "--set", "search.levels=1", "--set", inner)
    done = cli(here, "recipe", "tiny.toml", *words, "--out", "penalised/run")
    assert done.returncode == 0, done.stderr
    assert f"tiny: test {NAME}, %" in done.stdout
