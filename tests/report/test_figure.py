"""Figures are drawn for every study, the same bytes each time; and the report as a whole."""

import builtins
import subprocess
import sys
from dataclasses import replace

import pytest
from support.fake_runs import curves, fake_run, row

from lotteryfw.api.errors import UsageError
from lotteryfw.report import markdown, paper, report, write_figures

CLAIM = {
    "text": "a beats b",
    "source": "a paper",
    "study": "many",
    "higher": {"criterion": "a"},
    "lower": {"criterion": "b"},
}


def test_the_same_rows_give_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    rows = curves("many", [{"criterion": name} for name in "abcdefghijklm"])
    rows += [
        row({}, 0.5, study="one_level", density=0.3),
        row({}, 0.5, study="one_level", level=1, density=0.0),
    ]
    rows += [row({}, None, study="nothing"), row({}, 0.1, study="collapsed", density=0.0)]
    first, second = (fake_run(tmp_path / name, rows) for name in ("first", "second"))
    paths = write_figures(first)
    assert [path.name for path in paths] == [
        "many.png",
        "many.svg",
        "one_level.png",
        "one_level.svg",
        "collapsed.png",
        "collapsed.svg",
    ]
    assert [path.read_bytes() for path in paths] == [
        path.read_bytes() for path in write_figures(second)
    ]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<dc:date>" not in paths[1].read_bytes()


def without_matplotlib(monkeypatch):
    real = builtins.__import__

    def fake(name, *more, **named):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", fake)


def test_without_matplotlib_the_remedy_is_told(tmp_path, monkeypatch, capsys):
    folder = fake_run(
        tmp_path / "run", curves("many", [{"criterion": "a"}, {"criterion": "b"}]), [CLAIM]
    )
    without_matplotlib(monkeypatch)
    with pytest.raises(UsageError, match=r'pip install "lotteryfw\[plots\]"'):
        write_figures(folder)
    assert report(folder.path, show=True) == [folder.path / "report.html"]
    output = capsys.readouterr().out
    assert "test accuracy" in output
    assert "supported" in output
    assert 'pip install "lotteryfw[plots]"' in output


def test_a_report_is_the_page_and_the_figures(tmp_path):
    pytest.importorskip("matplotlib")
    folder = fake_run(tmp_path / "run", curves("many", [{"criterion": "a"}], levels=2))
    made = report(folder.path)
    assert [path.relative_to(folder.path).as_posix() for path in made] == [
        "report.html", "figures/many.png", "figures/many.svg",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in made)


def test_markdown_has_tables_and_claims(tmp_path):
    folder = fake_run(
        tmp_path / "run", curves("many", [{"criterion": "a"}, {"criterion": "b"}]), [CLAIM]
    )
    text = markdown(folder.path)
    assert text.startswith("**many: test accuracy, %")
    assert "\n\n- **supported**: a beats b (a paper). " in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the folder of a run"):
        report(tmp_path)


def test_reporting_does_not_import_torch(tmp_path):
    folder = fake_run(
        tmp_path / "run",
        curves("many", [{"criterion": "a"}, {"criterion": "b"}], levels=3),
        [CLAIM],
    )
    code = (
        "import sys; from pathlib import Path; from lotteryfw.report import report; "
        "report(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder.path)]).returncode == 0


def test_many_panels_stand_in_several_rows(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    metrics = {f"metric{index}": 0.5 for index in range(6)}
    rows = [replace(each, metrics=metrics) for each in curves("many", [{"criterion": "a"}])]
    with image.open(write_figures(fake_run(tmp_path / "run", rows))[0]) as picture:
        assert picture.height > picture.width / 1.6  # eight panels: three rows of three


@pytest.mark.parametrize("text", [r"Accuracy against $\density$", "From $5 to $10", "a $_$ b"])
def test_dollars_in_titles_and_labels_are_dollars(tmp_path, text):
    pytest.importorskip("matplotlib")
    rows = curves("many", [{"criterion": text}, {"criterion": "b"}], levels=2)
    rows += [row({"criterion": text}, 0.9, study="flat", level=1, density=0.5)]
    # no level of this study has a place on a log axis
    rows += [row({}, 0.1, study="empty", level=level, density=0.0) for level in (0, 1)]
    folder = fake_run(tmp_path / "run", rows)
    folder.write_manifest(folder.read_manifest() | {"title": text})
    _, *figures = report(folder.path)
    paper(folder.path)
    svg = {path.stem: path.read_text("utf-8") for path in figures if path.suffix == ".svg"}
    # matplotlib notes each text beside its outlines
    assert f"<!-- {text} · many -->" in svg["many"]
    assert f"<!-- {text} -->" in svg["many"]
    assert "mathdefault" not in "".join(svg.values())
