"""Data that is not there is refused by `check` and before a run, and files without a fingerprint are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.commands import QUICK, cli, refused
from support.runs import recipe

from lotteryfw.api.errors import DataError, RecipeError
from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run

SOURCE = """
from pathlib import Path
from lotteryfw import DataError, DataSource, DatasetInfo, Dataset, Subset, hookimpl

class Mine(DataSource):
    "Reads a file."
    use = "mine"

    def facts(self, folder):
        return DatasetInfo((1, 4, 4), 3, 100, 20, 20)

    def load(self, folder):
        import torch
        x = torch.load(folder / "x.pt")
        y = torch.arange(140) % 3
        rows = [slice(0, 100), slice(100, 120), slice(120, 140)]
        return Dataset(*[Subset(x[part], y[part]) for part in rows])
{more}
@hookimpl
def register_components():
    return [Mine]
"""
FILES = """
    def files(self, folder):
        return [folder / "x.pt"]
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    return tmp_path


def context(folder: Path, more: str) -> StudyContext:
    (folder / "mine.py").write_text(SOURCE.format(more=more))
    table = recipe(data="mine")
    return StudyContext(table, data=folder, store=folder / "store", trust=[folder / "mine.py"])


def test_a_source_that_reads_files_without_a_fingerprint_is_warned_of(tmp_path: Path) -> None:
    torch.save(torch.ones(140, 1, 4, 4), tmp_path / "x.pt")
    checked = context(tmp_path, "")
    checked.validate_data()
    assert checked.warnings == [
        f"data 'mine' reads {tmp_path / 'x.pt'} and has no fingerprint: results would not notice "
        "other content in that file; give it a method `files(folder)`, which returns the paths "
        "that it reads"
    ]
    checked = context(tmp_path, FILES)
    checked.validate_data()
    assert checked.warnings == []


def test_a_source_that_reads_no_file_is_not_warned_of(tmp_path: Path) -> None:
    checked = StudyContext(recipe(), data=tmp_path, store=tmp_path / "store")
    checked.validate_data()
    digits = StudyContext(recipe(data="digits"), data=tmp_path, store=tmp_path / "store")
    digits.validate_data()
    assert checked.warnings == digits.warnings == []


def test_missing_files_are_a_fault_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe: data: data 'mine' broke in load\(\): .*x\.pt"):
        context(tmp_path, FILES).validate_data()


CHECK = """
    def check(self, folder):
        {body}
"""


def test_a_source_looks_at_its_files_before_a_run(tmp_path: Path) -> None:
    torch.save(torch.ones(140, 1, 4, 4), tmp_path / "x.pt")
    checked = context(tmp_path, FILES + CHECK.format(body='return ["mine: two rows are odd"]'))
    checked.validate_data()
    assert checked.warnings == ["mine: two rows are odd"]
    for body, message in (
        ('raise DataError("x.pt is odd")', "recipe: data: x.pt is odd"),
        ('return "odd"', r"check\(\) returned 'odd'; it must return a list of texts"),
        ("return [3]", r"check\(\) returned \[3\]; it must"),
        ("return 1 / 0", r"data 'mine' broke in check\(\): ZeroDivisionError"),
    ):
        checked = context(tmp_path, FILES + CHECK.format(body=body))
        with pytest.raises(RecipeError, match=message):
            checked.validate_data()


def test_check_looks_for_the_data_and_says_how_to_get_it(here: Path) -> None:
    text = (here / "tiny.toml").read_text()
    start, end = text.index("data ="), text.index("model =")
    (here / "tiny.toml").write_text(text[:start] + 'data = "mnist"\n' + text[end:])
    raw = here / "data" / "MNIST" / "raw"
    assert refused(here, "check", "tiny.toml") == (
        f"error: tiny.toml: data: mnist is not there: {raw} lacks train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte. `lotteryfw data "
        "fetch mnist` downloads it; without a network, put these files there (unpacked, named "
        "like this)\n"
    )
    # a run that is refused leaves neither its folder nor a store
    refused(here, "recipe", "tiny.toml")
    assert sorted(path.name for path in here.iterdir()) == ["tiny.toml"]


def test_the_data_of_a_target_is_looked_for_too(here: Path) -> None:
    target = '\n[[target]]\nname = "digits"\ndata = "mnist"\n'
    # inputs of MNIST's shape, so that nothing else is wrong with the target
    text = (here / "tiny.toml").read_text().replace("[1, 4, 4]", "[1, 28, 28]")
    (here / "tiny.toml").write_text(text + target)
    start = "error: tiny.toml: target[0].data: mnist is not there: "
    message = refused(here, "check", "tiny.toml")
    assert message.startswith(start), message
    # one fault, although each of two cells has the target
    assert message.count("is not there") == 1
    refused(here, "recipe", "tiny.toml")
    assert sorted(path.name for path in here.iterdir()) == ["tiny.toml"]


def test_all_cells_diverged_is_exit_code_1(here: Path) -> None:
    done = cli(here, "recipe", "tiny.toml", "--jobs", "1", "-q", "--set", "train.optimizer.lr=1e30")
    assert (done.returncode, "diverged" in done.stderr) == (1, True)


def test_a_refused_run_from_python_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        run(recipe(data="mnist"), out=tmp_path / "run", data=tmp_path, store=tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_data_that_an_objective_cannot_read_leaves_no_folder(tmp_path: Path) -> None:
    torch.save(torch.ones(140, 1, 4, 4), tmp_path / "x.pt")
    wrong = SOURCE.replace("% 3", "% 3 + 9").format(more=FILES)
    (tmp_path / "mine.py").write_text(wrong)
    with pytest.raises(DataError, match="labels must lie in"):
        run(
            recipe(data="mine"), out=tmp_path / "runs" / "one", data=tmp_path,
            store=tmp_path / "store", trust=[tmp_path / "mine.py"],
        )  # fmt: skip
    assert not (tmp_path / "runs").exists()
