"""The notebook of the docs runs, cell by cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.commands import environment
from support.paths import ROOT

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"


@pytest.mark.large
def test_its_code_runs_as_a_script(tmp_path: Path) -> None:
    sources = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            sources.append("".join(cell["source"]))
            # what a run left behind would be shown as if it were true of this version
            assert cell["outputs"] == []
    (tmp_path / "notebook.py").write_text("\n".join(sources))
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["large_final", "moved_far", "random"]
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()


def test_it_runs_in_a_kernel_and_shows_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (find_spec("nbclient") and find_spec("ipykernel")):
        pytest.skip("a notebook's kernel: nbclient or ipykernel is not installed")
    import nbformat
    from nbclient import NotebookClient

    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    # the kernel may be that of another environment
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts.append(str(output.get("text", "")) + str(output.get("data", "")))
    shown = "\n".join(texts)
    assert "notebook: 6 cells, up to" in shown
    assert "large_final: " in shown
    # the run itself, as a table of the notebook
    assert "text/html" in shown
