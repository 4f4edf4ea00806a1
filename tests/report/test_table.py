"""Summary tables: right figures in the right cells, and no line wider than the terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from support.fake_runs import curves, fake_run, row

from lotteryfw.report import markdown, summary_markdown, summary_tables, write_page

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
    folder = fake_run(
        tmp_path / "run",
        curves("criteria", [{"criterion": name} for name in CRITERIA], steps=50_000),
    )
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
    rows = [
        row({}, 0.97 + 0.01 * seed, seed=seed, level=1, density=0.512, stop=1000 + seed)
        for seed in (0, 1)
    ]
    rows += [row({}, 0.5, seed=seed, level=2, density=0.2) for seed in (0, 1)]
    text = summary_markdown(fake_run(tmp_path / "run", rows))
    assert "**criteria: test accuracy, % (mean ± sd over 2 seeds)**" in text
    assert (
        "| weights remaining, % | 51.2 | 20 |\n| --- | ---: | ---: |\n| ticket | 97.50 ± 0.71 | 50.00"
        in text
    )
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


@pytest.mark.parametrize("levels", [8, 12, 25])
@pytest.mark.parametrize("count", [1, 9])
def test_markdown_has_every_level_of_every_series(tmp_path, levels, count):
    combinations = [{"criterion": f"criterion{number}"} for number in range(count)]
    rows = curves("a", combinations, levels=levels)
    text = summary_markdown(fake_run(tmp_path / "run", rows))
    accuracies = text.partition("early-stopping")[0]
    assert accuracies.count("±") == count * (levels + 1) + accuracies.count("(mean ±")
    for line in accuracies.splitlines():
        # wide tables are turned, and of many series there are several
        assert line.count("|") <= 10
    for number in range(count):
        assert count == 1 or f"criterion{number}" in text


def test_a_run_without_levels_has_no_tables(tmp_path):
    folder = fake_run(tmp_path / "run", [])
    assert summary_tables(folder) == []
    assert summary_markdown(folder) == ""


@pytest.mark.parametrize("width", [50, 80, 200])
def test_arms_and_layers_are_all_there_in_any_terminal(tmp_path, width):
    variants = ("ticket", "thresholded", "trained", "reinit", "random_mask")
    axes = [
        {"mask1": name, "parametrization": "bernoulli(rescale=dynamic)"}
        for name in ("rewind", "constant")
    ]
    rows = [
        row(combination, 0.9, variant=variant, level=1, density=0.5)
        for combination in axes
        for variant in variants
    ]
    layers = ";".join(f"layer{index}.weight={index / 10}" for index in range(1, 9))
    lines = printed(
        fake_run(
            tmp_path / "run", [replace(level_row, layer_densities=layers) for level_row in rows]
        ),
        width,
    )
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    for head in (
        "ticket ",
        "thresholded",
        "trained",
        "reinit",
        "random_mask",
        "expected",
    ):
        assert head in text
    assert "whole network" in text
    for index in range(1, 9):
        assert f"layer{index}.weight" in text
    assert ("continued" in text) == (width < 200)
    assert "…" not in text


def test_a_few_levels_are_all_there_and_of_many_those_left_out_are_named(tmp_path):
    few = printed(
        fake_run(tmp_path / "run", curves("few", [{"criterion": "x" * 30}], levels=3)), 60
    )
    heads = " ".join(line for line in few if "weights remaining" in line).split()
    assert heads.count("51.2") == 2  # accuracy, early stopping
    text = " ".join(" ".join(printed(fake_run(tmp_path / "run", curves("many", [{}])), 60)).split())
    by_option = "not shown here, but in report.html and by `lotteryfw report RUN --every-level`: "
    assert f"{by_option}80, 64, 51.2," in text


def test_brackets_in_names_are_printed(tmp_path):
    study = "[bold]mine[/bold]"
    axes = [{"scope": "global(exclude=[fc3*])"}, {"scope": "rates[red]"}]
    text = "\n".join(printed(fake_run(tmp_path / "run", curves(study, axes, levels=1)), 120))
    for name in (f"{study}: test accuracy", *(combination["scope"] for combination in axes)):
        assert name in text


def test_a_run_in_which_everything_diverged_says_so(tmp_path):
    rows = [
        row({"search": name}, None, seed=seed, level=1, density=0.5)
        for name in "ab"
        for seed in (0, 1)
    ]
    folder = fake_run(tmp_path / "run", rows)
    text = summary_markdown(folder)
    assert "every training diverged" in text
    assert "| a | 1 | 50 | 2 |" in text
    assert any("every training diverged" in line for line in printed(folder, 100))
    assert "every training diverged" in write_page(folder).read_text("utf-8")


def test_levels_of_one_density_have_a_column_each(tmp_path):
    rows = []
    for seed in (0, 1):
        for level, accuracy in enumerate((0.9, 0.8, 0.7)):
            density = 1.0 if level < 2 else 0.5
            rows.append(row({"k": "0it"}, accuracy, seed=seed, level=level, density=density))
            if level:
                rows.append(
                    row({"k": "0it"}, accuracy - 0.3, variant="reinit", seed=seed, level=level, density=density)
                )  # fmt: skip
    lines = printed(fake_run(tmp_path / "run", rows), 120)
    text = "\n".join(lines[:9])
    assert re.search(r"weights remaining, % +level 0: 100 +level 1: 100 +50", text)
    assert re.search(r"ticket +90.00 ± 0.00 +80.00 ± 0.00 +70.00 ± 0.00", text)
    assert re.search(r"reinit +– +50.00 ± 0.00 +40.00 ± 0.00", text)


STRANGE = ("layers=conv|fc", "a\n\nb", "bold<b>")


def test_signs_in_labels_change_no_markdown_table(tmp_path):
    rows = []
    for name in STRANGE:
        for level in range(3):
            rows.append(row({"criterion": name}, 0.9, level=level, density=0.5**level))
    claim = {
        "text": "a <b> is\nbetter", "source": "s", "study": "criteria",
        "of": {"criterion": STRANGE[0]}, "at_least": 0.5,
    }  # fmt: skip
    text = markdown(fake_run(tmp_path / "run", rows, [claim]).path)
    for label in ("layers=conv|fc", "a  b", "bold&lt;b>"):
        cell = label.replace("|", "\\|")
        assert f"\n| {cell} | 90.00 | 90.00 | 90.00 |\n" in text
        assert f"\n- {label}: " in text  # winning tickets
    assert "**: a &lt;b> is better (s). " in text
    assert "<b" not in text
