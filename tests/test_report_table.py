"""Summary tables: right figures in the right cells, and no line wider than the terminal."""

import io

import pytest
from fake_runs import curves, fake_run, row
from rich.console import Console

from lotteryfw.report import summary_markdown, summary_tables

CRITERIA = [
    "large_final", "magnitude_increase", "movement", "large_init_large_final", "large_init", "random", "small_init",
    "small_init_small_final", "small_final", "large_final_same_sign", "large_final_diff_sign",
    "magnitude_increase_same_sign", "magnitude_increase_diff_sign",
]  # fmt: skip


def printed(folder, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    for table in summary_tables(folder, width):
        console.print(table)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_thirteen_series_and_twenty_five_levels_fit(tmp_path, width):
    folder = fake_run(tmp_path / "run", curves("criteria", [{"criterion": name} for name in CRITERIA], steps=50_000))
    lines = printed(folder, width)
    assert max(map(len, lines)) <= width
    for name in CRITERIA:
        assert sum(f" {name} " in line for line in lines) == 2  # accuracy, early stopping
    head = next(line for line in lines if "weights remaining" in line).split()
    assert (head[3], head[-1]) == ("100", "0.47")
    of_one = next(line for line in lines if " large_final " in line)
    assert of_one.count("±") == len(head) - 3 >= 3
    assert not any("…" in line for line in lines)


def test_cells_are_means_and_deviations(tmp_path):
    rows = [row({}, 0.97 + 0.01 * seed, seed=seed, level=1, density=0.512, stop=1000 + seed) for seed in (0, 1)]
    rows += [row({}, 0.5, seed=seed, level=2, density=0.2) for seed in (0, 1)]
    text = summary_markdown(fake_run(tmp_path / "run", rows))
    assert "**criteria: test accuracy, % (mean ± sd over 2 seeds)**" in text
    assert "| weights remaining, % | 51.2 | 20 |\n| --- | ---: | ---: |\n| ticket | 97.50 ± 0.71 | 50.00" in text
    assert "| ticket | 1,000 ± 1 |" in text


def test_what_is_missing_is_told(tmp_path):
    rows = [row({"scope.rate": "0.2"}, 0.9, seed=seed, level=1, density=0.8) for seed in (0, 1)]
    rows += [row({"scope.rate": "0.2"}, 0.9, seed=seed, level=2, density=0.64) for seed in (0, 1)]
    rows += [
        row({"scope.rate": "0.3"}, 0.9, seed=0, level=1, density=0.78),
        row({"scope.rate": "0.3"}, None, seed=1, level=1, density=0.78),
        row({"scope.rate": "0.5"}, 0.9, seed=0, level=1, density=0.5),
    ]
    text = summary_markdown(fake_run(tmp_path / "run", rows))
    assert "| rate=0.2 | 90.00 ± 0.00 |" in text
    assert "| rate=0.3 | 90.00† |" in text  # within 5 % of the column's density, one seed of two
    assert "| rate=0.5 | – |" in text
    assert "† fewer than 2 seeds" in text
    assert "1 diverged training left out" in text


def test_markdown_keeps_the_first_and_the_last_level(tmp_path):
    text = summary_markdown(fake_run(tmp_path / "run", curves("a", [{}], levels=24)))
    assert "| weights remaining, % | 100 | 51.2 | 21 | 10.7 | 4.4 | 2.3 | 0.92 | 0.47 |" in text


def test_a_run_without_levels_has_no_tables(tmp_path):
    folder = fake_run(tmp_path / "run", [])
    assert summary_tables(folder) == []
    assert summary_markdown(folder) == ""
