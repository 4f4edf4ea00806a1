"""Figures and tables for papers: widths, fonts, LaTeX and CSV, and the same bytes every time."""

from __future__ import annotations

import csv
import io
import re
import zlib
from pathlib import Path

import pytest
from support.fake_runs import A, B, curves, fake_run
from typer.testing import CliRunner

from lotteryfw.cli.app import app
from lotteryfw.report import paper
from lotteryfw.report.figures.paper_files import csv_table, latex_table
from lotteryfw.report.tables.text_table import TextTable

pytest.importorskip("matplotlib")


def media_box(path: Path) -> tuple[float, float]:
    """Return width and height of the first page, in points."""
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", path.read_bytes())
    assert box is not None
    return float(box[1]), float(box[2])


def font_sizes(path: Path) -> set[float]:
    """Return the sizes of the letters that a page draws."""
    text = b""
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.S):
        try:
            text += zlib.decompress(stream)
        except zlib.error:
            continue
    return {float(size) for size in re.findall(rb"/F\d+ ([\d.]+) Tf", text)}


def test_figures_have_the_width_of_a_column_and_of_a_page(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", curves("criteria", [A, B], levels=12))
    first = {path.name: path.read_bytes() for path in paper(folder.path)}
    assert sorted(first) == [
        "criteria-column.pdf", "criteria-page.pdf", "criteria-table1.csv", "criteria-table1.tex",
        "criteria-table2.csv", "criteria-table2.tex",
    ]  # fmt: skip
    assert media_box(folder.path / "paper" / "criteria-column.pdf")[0] == 3.25 * 72
    assert media_box(folder.path / "paper" / "criteria-page.pdf")[0] == 6.75 * 72
    assert {path.name: path.read_bytes() for path in paper(folder.path)} == first


def test_the_font_size_is_that_of_the_letters(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", curves("criteria", [A, B], levels=12))
    done = CliRunner().invoke(
        app, ["report", str(folder.path), "--paper", "--font-size", "10"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert str(folder.path / "paper" / "criteria-column.pdf") in done.stdout
    assert font_sizes(folder.path / "paper" / "criteria-column.pdf") == {9.0, 10.0}
    assert not (folder.path / "report.html").exists()


def test_a_table_is_latex_with_every_sign_escaped() -> None:
    table = TextTable("a_b", ("series", "1 %"), (("x_1 & y", "9.5 ± 0.1"),), ("a note",))
    assert latex_table(table) == (
        "% a_b\n\\begin{tabular}{lr}\n  \\toprule\n  series & 1 \\% \\\\\n  \\midrule\n"
        "  x\\_1 \\& y & 9.5 $\\pm$ 0.1 \\\\\n  \\bottomrule\n\\end{tabular}\n% a note\n"
    )


def test_signs_that_latex_has_no_letters_for_are_commands() -> None:
    table = TextTable("a\nb", ("series", "1"), (("a\n\nb", "x<y>z|w"),), ("one\ntwo",))
    text = latex_table(table)
    assert text.startswith("% a b\n")
    assert "  a  b & x\\textless{}y\\textgreater{}z\\textbar{}w \\\\\n" in text
    assert text.endswith("\n% one two\n")


def test_every_level_is_in_the_tables(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", curves("criteria", [A, B], levels=25))
    paper(folder.path)
    with (folder.path / "paper" / "criteria-table1.csv").open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert len(head) == 27
    assert [line[0] for line in rows] == ["a", "b"]
    text = (folder.path / "paper" / "criteria-table1.tex").read_text("utf-8")
    assert text.count("$\\pm$") == 2 * 26
    table = TextTable("t", ("s", "a,b"), (('say "x"', "1"),), ())
    assert list(csv.reader(io.StringIO(csv_table(table)))) == [["s", "a,b"], ['say "x"', "1"]]
